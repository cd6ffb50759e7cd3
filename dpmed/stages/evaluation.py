"""Evaluation of a finished run: predictions to files, then metrics from these files alone."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from dpmed.config import RunConfig
from dpmed.evaluation.metrics import evaluate, write_metrics
from dpmed.evaluation.predictions import make_predictions, read_predictions, write_predictions
from dpmed.stages.study import Study
from dpmed.training.predict import predict_probabilities

SPLITS = ("validation", "test")


def evaluate_run(config: RunConfig, model: nn.Module, study: Study, run_dir: Path) -> None:
    """Writes `predictions/<split>.parquet` and `metrics.json`."""
    for split in SPLITS:
        rows = study.rows_of(split)
        probabilities_NL = predict_probabilities(
            model,
            study.images_NHW,
            rows,
            batch_size=2 * config.performance.physical_batch_size,
            description=f"predicting {split}",
        )
        predictions = make_predictions(
            study.table.iloc[rows], probabilities_NL, labels=study.labels
        )
        write_predictions(predictions, run_dir / "predictions" / f"{split}.parquet")
    write_run_metrics(config, run_dir)


def write_run_metrics(config: RunConfig, run_dir: Path) -> None:
    """Rebuilds `metrics.json` from the predictions on disk, without a model."""
    predictions = {
        split: read_predictions(run_dir / "predictions" / f"{split}.parquet") for split in SPLITS
    }
    metrics = evaluate(
        predictions,
        labels=config.data.labels,
        subgroups=config.evaluation.subgroups,
        age_bins=config.evaluation.age_bins,
        num_bootstrap=config.evaluation.num_bootstrap,
        seed=config.seed,
        min_positives=config.evaluation.min_positives,
        min_negatives=config.evaluation.min_negatives,
    )
    write_metrics(metrics, run_dir / "metrics.json")
