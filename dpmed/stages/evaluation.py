"""Evaluation of a finished run: predictions to files, then metrics from these files alone."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from dpmed.config import RunConfig
from dpmed.evaluation.metrics import evaluate, write_metrics
from dpmed.evaluation.predictions import make_predictions, read_predictions, write_predictions
from dpmed.stages.study import Study
from dpmed.stages.training import AVERAGED_WEIGHTS, WEIGHTS
from dpmed.training.predict import predict_probabilities

SPLITS = ("validation", "test")


def evaluate_run(config: RunConfig, model: nn.Module, study: Study, run_dir: Path) -> None:
    """Writes `predictions/<split>.parquet` and `metrics.json` from the exported weights.

    Averaged weights (`training.ema_decay`) are evaluated beside, as the splits `<split>_ema`.
    """
    _predict(config, model, study, run_dir, weights=WEIGHTS, suffix="")
    if (run_dir / AVERAGED_WEIGHTS).exists():
        _predict(config, model, study, run_dir, weights=AVERAGED_WEIGHTS, suffix="_ema")
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


def write_run_metrics(config: RunConfig, run_dir: Path) -> None:
    """Rebuilds `metrics.json` from the predictions on disk, without a model."""
    folder = run_dir / "predictions"
    averaged = ("test_ema",) if (folder / "test_ema.parquet").exists() else ()
    predictions = {
        split: read_predictions(folder / f"{split}.parquet") for split in (*SPLITS, *averaged)
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
