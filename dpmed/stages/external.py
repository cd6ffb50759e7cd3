"""A finished model on another data set: its predictions there, scored with the frozen thresholds.

The preprocessing is the run's own, since it is part of the model; thresholds are those that the
run's validation patients gave. Labels are matched by name, and what the other data set lacks is
missing, never negative.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from dpmed.config import DataConfig, RunConfig, SyntheticData, VolumeData
from dpmed.errors import UserError
from dpmed.evaluation.predictions import make_predictions, write_predictions
from dpmed.evaluation.run_metrics import EXTERNAL, write_run_metrics
from dpmed.report.page import build_report
from dpmed.report.site_matrix import file_name
from dpmed.stages.finished_run import read_completed_record, read_config, trained_model
from dpmed.stages.study import load_study
from dpmed.training.predict import predict_probabilities

logger = logging.getLogger(__name__)

Split = Literal["test", "all"]


def evaluate_external(run_dir: Path, other: DataConfig, *, split: Split = "test") -> Path:
    """Evaluates a run on another data set, and rebuilds its metrics and report.

    Args:
        run_dir: a completed run.
        other: the data set; its own preprocessing is not used.
        split: the data set's test patients, or all of its patients.

    Returns:
        The report's page.

    Raises:
        UserError: no label in common, or training patients among the evaluated.
    """
    predict_external(run_dir, other, split=split)
    write_run_metrics(read_config(run_dir), run_dir)
    return build_report(run_dir)


def predict_external(run_dir: Path, other: DataConfig, *, split: Split = "test") -> Path:
    """Writes `predictions/external_<id>.parquet` of one data set, and what it is beside it."""
    read_completed_record(run_dir)
    config = read_config(run_dir)
    shared, lacking = _labels(config, other)
    study = load_study(
        _preprocessed_as(config.data, other),
        unit="image",
        num_workers=config.performance.num_workers,
    )
    rows = np.arange(len(study.table)) if split == "all" else study.rows_of("test")
    if not len(rows):
        raise UserError(
            f"{other.id} has no image in its test split. Evaluate on all of it with --split all."
        )
    table = study.table.iloc[rows].copy()
    table["patient_id"] = table["patient_id"].fillna(table["image"])
    _check_patients(run_dir, config, other, table)
    table[lacking] = np.float32(np.nan)
    probabilities_NL = predict_probabilities(
        trained_model(config, run_dir),
        study.images_NHW,
        rows,
        batch_size=2 * config.performance.physical_batch_size,
        description=f"predicting {other.id}",
    )
    dropped = [label for label in other.labels if label not in shared]
    predictions = make_predictions(
        table.drop(columns=dropped), probabilities_NL, labels=config.data.labels
    )
    path = run_dir / "predictions" / f"{EXTERNAL}{file_name(other.id)}.parquet"
    write_predictions(predictions, path)
    _describe(path, other, split, lacking, num_images=len(table), split_hash=study.split_hash)
    return path


def _preprocessed_as(own: DataConfig, other: DataConfig) -> DataConfig:
    """The other data set, whole, with the preprocessing that belongs to the model.

    How DICOM files are to be read (window, photometric tag) belongs to the files.
    """
    if isinstance(own, VolumeData) != isinstance(other, VolumeData):
        kinds = ["volumes" if isinstance(data, VolumeData) else "images" for data in (own, other)]
        raise UserError(f"The model answers {kinds[0]}, and {other.id} holds {kinds[1]}.")
    preprocessing: Any = own.preprocessing
    if not isinstance(other, VolumeData):
        files = other.preprocessing
        preprocessing = replace(
            preprocessing, apply_window=files.apply_window, photometric=files.photometric
        )
    changes: dict[str, Any] = {"preprocessing": preprocessing, "fraction": 1.0}
    return replace(other, **changes)


def _labels(config: RunConfig, other: DataConfig) -> tuple[list[str], list[str]]:
    shared = [label for label in config.data.labels if label in other.labels]
    lacking = [label for label in config.data.labels if label not in other.labels]
    if not shared:
        raise UserError(
            f"data.labels={other.labels}: the model answers {', '.join(config.data.labels)}, and "
            f"{other.id} has none of them. Name its columns with data.labels and data.label_map."
        )
    if lacking:
        logger.warning(
            "%s has no label for %s: not estimable there. Compared are %s.",
            other.id,
            ", ".join(lacking),
            ", ".join(shared),
        )
    return shared, lacking


def _check_patients(
    run_dir: Path, config: RunConfig, other: DataConfig, table: pd.DataFrame
) -> None:
    """Patients that the model was fitted on, or its thresholds chosen on, say nothing about it."""
    splits = pd.read_csv(run_dir / "splits.csv", dtype={"patient_id": str, "image": str})
    used = splits[splits["split"] != "test"]
    known = set(used["patient_id"].fillna(used["image"]))
    common = known.intersection(table["patient_id"])
    if not common:
        return
    if other.id == config.data.id:
        raise UserError(
            f"{len(common)} of the patients in {other.id} took part in training or validation of "
            f"{run_dir}. Use the run's own split settings and --split test, or give the data set "
            "another data.id if it holds other people."
        )
    if not isinstance(other, SyntheticData):  # whose sites all number their patients from 0
        logger.warning(
            "%d patient ids of %s also occur among the training patients of %s. If they are the "
            "same people, these figures are too good; `dpmed overlap` compares the images.",
            len(common),
            other.id,
            config.data.id,
        )


def _describe(
    path: Path,
    other: DataConfig,
    split: Split,
    lacking: Sequence[str],
    *,
    num_images: int,
    split_hash: str,
) -> None:
    content = {
        "data_id": other.id,
        "split": split,
        "split_hash": split_hash,
        "num_images": num_images,
        "labels_lacking": list(lacking),
        "thresholds": "frozen from the run's validation patients",
    }
    path.with_suffix(".json").write_text(json.dumps(content, indent=2), encoding="utf-8")
