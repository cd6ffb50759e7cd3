"""The predictions file: one row an image, with what every table and plot is rebuilt from.

It is written once for each split after training and read by evaluation and report, which need
neither a model nor a GPU. Columns: `image`, `patient_id`, `sex`, `age`, `view`, `site`, `split`,
then `label_<name>` (1, 0 or missing) and `prob_<name>` (float32) for every label. This file says
what a valid table is; it computes no metric and never imports torch.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dpmed.errors import UserError, did_you_mean

ATTRIBUTES = ("sex", "age", "view", "site")
IDENTIFIERS = ("image", "patient_id", *ATTRIBUTES, "split")
NUM_NAMED = 3  # how many offending rows a message names


@dataclass(frozen=True, kw_only=True)
class LabelColumn:
    """One label over the N rows of a predictions table.

    Args:
        name: the label.
        known_N: false where the truth is missing; such a row counts as neither class.
        positive_N: true where the truth is 1.
        scores_N: probabilities in float64.
        reason: why nothing can be computed from the scores; None where it can.
    """

    name: str
    known_N: np.ndarray
    positive_N: np.ndarray
    scores_N: np.ndarray
    reason: str | None


def make_predictions(
    study_table: pd.DataFrame, probabilities_NL: np.ndarray, *, labels: Sequence[str]
) -> pd.DataFrame:
    """Joins a study table with the probabilities of its rows, in the same order.

    Args:
        study_table: the rows that were predicted, in the order of the probabilities; columns
            beyond the fixed ones are kept, so that any of them can become a subgroup.
        probabilities_NL: one row an image, one column a label, in [0, 1].
        labels: the names of the columns, as in the study table.

    Raises:
        UserError: the shapes differ or the study table lacks a label.
    """
    expected = (len(study_table), len(labels))
    if probabilities_NL.shape != expected:
        raise UserError(
            f"The probabilities have shape {probabilities_NL.shape}, but the study table and the "
            f"labels ask for {expected} (images, labels)."
        )
    _require_columns(study_table, labels, "study table")
    others = [c for c in study_table.columns if c not in labels and c not in IDENTIFIERS]
    absent = pd.Series(None, index=study_table.index, dtype=object)
    parts: dict[str, object] = {
        column: study_table.get(column, absent).to_numpy() for column in (*IDENTIFIERS, *others)
    }
    for index, label in enumerate(labels):
        parts[f"label_{label}"] = study_table[label].to_numpy(np.float32)
        parts[f"prob_{label}"] = probabilities_NL[:, index].astype(np.float32)
    predictions = pd.DataFrame(parts)
    # Where patients are unknown, intervals resample images.
    predictions["patient_id"] = predictions["patient_id"].fillna(predictions["image"])
    return predictions


def write_predictions(predictions: pd.DataFrame, path: Path) -> Path:
    """Checks the table and writes it as Parquet; a crash leaves the old file or the new one.

    Raises:
        UserError: the table is not valid (see `validate_predictions`).
    """
    validate_predictions(predictions, labels=label_names(predictions))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            pq.write_table(pa.Table.from_pandas(predictions, preserve_index=False), file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def read_predictions(path: Path, *, labels: Sequence[str] | None = None) -> pd.DataFrame:
    """Reads a predictions file and checks it.

    Args:
        path: a Parquet file that `write_predictions` wrote.
        labels: the labels that must be there; every label in the file when left out.

    Raises:
        UserError: the file is missing, truncated, or lacks a column.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There are no predictions at {path}. Evaluate this run again.")
    try:
        predictions = pq.read_table(path).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path} cannot be read as Parquet ({error}). It is probably truncated: delete it and "
            "evaluate this run again."
        ) from error
    names = label_names(predictions) if labels is None else list(labels)
    validate_predictions(predictions, labels=names, source=str(path))
    return predictions


def label_names(predictions: pd.DataFrame) -> list[str]:
    """The labels of a predictions table, in column order."""
    return [c.removeprefix("label_") for c in predictions.columns if c.startswith("label_")]


def validate_predictions(
    predictions: pd.DataFrame, *, labels: Sequence[str], source: str = "predictions"
) -> None:
    """Refuses a table that no metric could be computed from.

    NaN probabilities are not refused here: they make the metrics of their label null with a
    reason (`LabelColumn.reason`), and the other labels keep theirs.

    Raises:
        UserError: there are no labels or no rows, a column is missing, an image occurs twice, a
            patient id is missing, a label is neither 1, 0 nor missing, or a probability lies
            outside [0, 1].
    """
    if not labels or not len(predictions):
        raise UserError(f"{source}: {len(predictions)} rows, {len(labels)} labels; nothing to do.")
    wanted = [*IDENTIFIERS, *(f"{kind}_{label}" for label in labels for kind in ("label", "prob"))]
    _require_columns(predictions, wanted, source)
    duplicated = predictions["image"][predictions["image"].duplicated()]
    if len(duplicated):
        raise UserError(
            f"{source}: {len(duplicated)} images occur twice, such as {_some(duplicated)}. "
            "A predictions table has one row an image."
        )
    if predictions["patient_id"].isna().any():
        without = predictions["image"][predictions["patient_id"].isna()]
        raise UserError(
            f"{source}: {len(without)} rows have no patient_id, such as {_some(without)}. "
            "Intervals resample patients; where patients are unknown, repeat the image's own name."
        )
    for label in labels:
        _validate_values(predictions, label, source)


def match_predictions(
    predictions: pd.DataFrame, images: Sequence[str] | pd.Series, *, source: str = "predictions"
) -> pd.DataFrame:
    """The predictions in the order of `images`, which must be the same set.

    Args:
        predictions: a valid predictions table.
        images: the ids to match: those of a study table's split, or of another model.
        source: what the messages call the table.

    Raises:
        UserError: an id has no prediction, or a prediction has no id; names some of both.
    """
    wanted, found = pd.Index(images), pd.Index(predictions["image"])
    missing, extra = wanted.difference(found), found.difference(wanted)
    if len(missing) or len(extra):
        raise UserError(
            f"{source}: the image ids do not match. {len(missing)} have no prediction"
            f"{_such_as(missing)}; {len(extra)} predictions belong to no image{_such_as(extra)}. "
            "Both must come from the same split of the same table."
        )
    return predictions.set_index("image", drop=False).loc[wanted].reset_index(drop=True)


def label_column(predictions: pd.DataFrame, label: str) -> LabelColumn:
    """Truth and scores of one label, with what keeps them from being evaluated, in words."""
    truth_N = predictions[f"label_{label}"].to_numpy(float, na_value=np.nan)
    scores_N = predictions[f"prob_{label}"].to_numpy(float, na_value=np.nan)
    known_N = ~np.isnan(truth_N)
    num_not_finite = int((known_N & ~np.isfinite(scores_N)).sum())
    reason = None
    if num_not_finite:
        reason = f"{num_not_finite} of {int(known_N.sum())} scores are not finite"
    return LabelColumn(
        name=label, known_N=known_N, positive_N=truth_N == 1, scores_N=scores_N, reason=reason
    )


def _validate_values(predictions: pd.DataFrame, label: str, source: str) -> None:
    try:
        truth = predictions[f"label_{label}"].to_numpy(float, na_value=np.nan)
        scores = predictions[f"prob_{label}"].to_numpy(float, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}: label_{label} or prob_{label} is not numeric.") from error
    for name, wrong, allowed in (
        (f"label_{label}", ~np.isnan(truth) & (truth != 0) & (truth != 1), "1, 0 or missing"),
        (f"prob_{label}", np.isfinite(scores) & ((scores < 0) | (scores > 1)), "in [0, 1]"),
    ):
        if wrong.any():
            value = predictions[name].to_numpy()[wrong][0]
            raise UserError(
                f"{source}: {int(wrong.sum())} values of {name} are not {allowed}, "
                f"such as {value!r}."
            )


def _require_columns(table: pd.DataFrame, wanted: Sequence[str], source: str) -> None:
    missing = [column for column in wanted if column not in table.columns]
    if missing:
        found = [str(column) for column in table.columns]
        raise UserError(
            f"{source}: column {missing[0]!r} is missing ({len(missing)} in all)."
            f"{did_you_mean(missing[0], found)} It has: {', '.join(found)}."
        )


def _some(values: pd.Series | pd.Index) -> str:
    return ", ".join(str(value) for value in list(values[:NUM_NAMED]))


def _such_as(values: pd.Index) -> str:
    return f" (such as {_some(values)})" if len(values) else ""
