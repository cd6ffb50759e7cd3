"""`metrics.json` of a run folder, from its predictions and embeddings: no model, no torch.

The last step of a run's evaluation and the first of `dpmed report`; both give the same file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from dpmed.config import EvaluationConfig, RunConfig
from dpmed.errors import did_you_mean
from dpmed.evaluation.metrics import evaluate, write_metrics
from dpmed.evaluation.predictions import read_predictions
from dpmed.evaluation.representation import measure_representation

logger = logging.getLogger(__name__)

SPLITS = ("validation", "test")
EXTERNAL = "external_"  # predictions of another site: predictions/external_<site>.parquet


def write_run_metrics(config: RunConfig, run_dir: Path) -> Path:
    """Measures everything that the files of a run give, and writes `metrics.json`."""
    return measure_run(
        run_dir, labels=config.data.labels, seed=config.seed, settings=config.evaluation
    )


def measure_run(
    run_dir: Path, *, labels: Sequence[str], seed: int, settings: EvaluationConfig
) -> Path:
    """As `write_run_metrics`, from the few settings that it rests on.

    Averaged weights (`training.ema_decay`) are evaluated beside, as the split `test_ema`. What the
    files cannot give, or give doubtfully, is said in `notes`.

    Raises:
        UserError: the predictions of a split are missing or damaged; an older `metrics.json` stays.
    """
    folder = Path(run_dir) / "predictions"
    averaged = ("test_ema",) if (folder / "test_ema.parquet").exists() else ()
    predictions = {
        split: read_predictions(folder / f"{split}.parquet") for split in (*SPLITS, *averaged)
    }
    external = {
        path.stem.removeprefix(EXTERNAL): read_predictions(path)
        for path in sorted(folder.glob(f"{EXTERNAL}*.parquet"))
    }
    subgroups, notes = _available_subgroups(settings.subgroups, predictions)
    notes += _mismatches(predictions, Path(run_dir) / "splits.csv")
    for note in notes:
        logger.warning(note)
    logger.info("measuring   the representation, from embeddings")
    geometry = measure_representation(
        Path(run_dir),
        labels=labels,
        subgroups=subgroups,
        age_bins=settings.age_bins,
        num_bootstrap=settings.num_bootstrap,
        seed=seed,
    )
    logger.info("measuring   the predictions, on %d resamples", settings.num_bootstrap)
    metrics = evaluate(
        predictions,
        labels=labels,
        subgroups=subgroups,
        age_bins=settings.age_bins,
        intersections=settings.intersections,
        prevalence_matched=settings.prevalence_matched,
        num_bootstrap=settings.num_bootstrap,
        seed=seed,
        min_positives=settings.min_positives,
        min_negatives=settings.min_negatives,
        external=external,
        geometry=geometry,
    )
    return write_metrics(metrics | {"notes": notes}, Path(run_dir) / "metrics.json")


def _available_subgroups(
    wanted: Sequence[str], predictions: Mapping[str, pd.DataFrame]
) -> tuple[list[str], list[str]]:
    """The columns that every table has, and a sentence for each of the others."""
    available, notes = [], []
    for name in wanted:
        without = [split for split, table in predictions.items() if name not in table.columns]
        if not without:
            available.append(name)
            continue
        found = [str(column) for column in predictions[without[0]].columns]
        hint = did_you_mean(name, found)
        notes.append(f"evaluation.subgroups={name}: the predictions have no such column.{hint}")
    return available, notes


def _mismatches(predictions: Mapping[str, pd.DataFrame], splits: Path) -> list[str]:
    """Splits whose predictions are not of the images that the run put there; never their names."""
    try:
        listed = pd.read_csv(splits, dtype=str)
        images_of = listed.groupby("split")["image"].agg(set)
    except (OSError, ValueError, KeyError) as error:
        reason = f"{splits.name} cannot be read ({type(error).__name__})"
        return [f"{reason}, so nobody can tell whether the predictions are of this run's images."]
    notes = []
    for split, table in predictions.items():
        listed_images = images_of.get(split.removesuffix("_ema"), set())
        missing = len(listed_images - set(table["image"]))
        extra = len(set(table["image"]) - listed_images)
        if missing or extra:
            notes.append(
                f"The predictions of {split} do not match {splits.name}: {missing} of its images "
                f"have none, and {extra} predictions are of other images. The figures are those of "
                "the predictions."
            )
    return notes
