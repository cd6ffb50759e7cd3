"""Evaluation of a finished run: predictions to files, then metrics from these files alone."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from dpmed.config import RunConfig
from dpmed.evaluation.predictions import make_predictions, write_predictions
from dpmed.evaluation.run_metrics import SPLITS, write_run_metrics
from dpmed.stages.compilation import compile_in_place
from dpmed.stages.embedding import embed_run
from dpmed.stages.study import Study
from dpmed.stages.training import AVERAGED_WEIGHTS, WEIGHTS
from dpmed.training.predict import predict_probabilities


def evaluate_run(
    config: RunConfig, model: nn.Module, study: Study, run_dir: Path, *, num_units: int
) -> None:
    """Writes predictions, embeddings and `metrics.json` from the exported weights.

    Averaged weights (`training.ema_decay`) are evaluated beside, as the splits `<split>_ema`.

    Args:
        config: the run.
        model: takes the weights.
        study: whose validation and test images are evaluated.
        run_dir: takes `predictions/`, `embeddings/` and `metrics.json`.
        num_units: the declared number of training units.
    """
    if config.performance.compile:
        compile_in_place(model)
    if (run_dir / AVERAGED_WEIGHTS).exists():
        _predict(config, model, study, run_dir, weights=AVERAGED_WEIGHTS, suffix="_ema")
    _predict(config, model, study, run_dir, weights=WEIGHTS, suffix="")
    if config.evaluation.embeddings:
        embed_run(config, model, study, run_dir, num_units=num_units)
    write_run_metrics(config, run_dir)


def _predict(
    config: RunConfig,
    model: nn.Module,
    study: Study,
    run_dir: Path,
    *,
    weights: Path,
    suffix: str,
) -> None:
    model.load_state_dict(load_file(run_dir / weights))
    for split in SPLITS:
        rows = study.rows_of(split)
        probabilities_NL = predict_probabilities(
            model,
            study.images_NHW,
            rows,
            batch_size=2 * config.performance.physical_batch_size,
            description=f"predicting {split}{suffix}",
        )
        predictions = make_predictions(
            study.table.iloc[rows], probabilities_NL, labels=study.labels
        )
        write_predictions(predictions, run_dir / "predictions" / f"{split}{suffix}.parquet")
