"""Runs the planned logical steps under Lightning and says whether the run is complete."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger

from dpmed.training.batches import LogicalStepLoader
from dpmed.training.checkpoints import AtomicCheckpointIO, StepCheckpoint, StopAtStepBoundary
from dpmed.training.classifier import Classifier
from dpmed.training.progress import StepProgress


def fit(
    classifier: Classifier,
    loader: LogicalStepLoader,
    *,
    checkpoint: StepCheckpoint,
    resume_from: Path | None,
    loggers: list[Logger],
    run_dir: Path,
    accelerator: str,
    precision: Any,
) -> bool:
    """Trains from the start, or from a checkpoint, to the last planned logical step.

    Returns:
        Whether every planned step was taken; False after a stop that was asked for.
    """
    _quieten()
    stop = StopAtStepBoundary()
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=precision,
        max_epochs=1,
        max_steps=loader.num_steps,
        logger=loggers,
        # The order matters: a stop is noticed first, then saved.
        callbacks=[stop, checkpoint, StepProgress(loader.num_steps)],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=run_dir,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(classifier, loader, ckpt_path=resume_from, weights_only=True)
    return classifier.completed_steps == loader.num_steps


def _quieten() -> None:
    """Lightning's notes on itself; the banner says what a user needs."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
