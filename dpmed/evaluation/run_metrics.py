"""`metrics.json` of a run folder, from its predictions and embeddings: no model, no torch.

The last step of a run's evaluation and the first of `dpmed report`; both give the same file.
"""

from __future__ import annotations

from pathlib import Path

from dpmed.config import RunConfig
from dpmed.evaluation.metrics import evaluate, write_metrics
from dpmed.evaluation.predictions import read_predictions
from dpmed.evaluation.representation import measure_representation

SPLITS = ("validation", "test")
EXTERNAL = "external_"  # predictions of another site: predictions/external_<site>.parquet


def write_run_metrics(config: RunConfig, run_dir: Path) -> Path:
    """Measures everything that the files of a run give, and writes `metrics.json`.

    Averaged weights (`training.ema_decay`) are evaluated beside, as the split `test_ema`.

    Raises:
        UserError: the predictions of a split are missing or damaged; an older `metrics.json` stays.
    """
    settings = config.evaluation
    folder = Path(run_dir) / "predictions"
    averaged = ("test_ema",) if (folder / "test_ema.parquet").exists() else ()
    predictions = {
        split: read_predictions(folder / f"{split}.parquet") for split in (*SPLITS, *averaged)
    }
    external = {
        path.stem.removeprefix(EXTERNAL): read_predictions(path)
        for path in sorted(folder.glob(f"{EXTERNAL}*.parquet"))
    }
    geometry = measure_representation(
        Path(run_dir),
        labels=config.data.labels,
        subgroups=settings.subgroups,
        age_bins=settings.age_bins,
        num_bootstrap=settings.num_bootstrap,
        seed=config.seed,
    )
    metrics = evaluate(
        predictions,
        labels=config.data.labels,
        subgroups=settings.subgroups,
        age_bins=settings.age_bins,
        intersections=settings.intersections,
        prevalence_matched=settings.prevalence_matched,
        num_bootstrap=settings.num_bootstrap,
        seed=config.seed,
        min_positives=settings.min_positives,
        min_negatives=settings.min_negatives,
        external=external,
        geometry=geometry,
    )
    return write_metrics(metrics, Path(run_dir) / "metrics.json")
