"""TAIX-Ray (University Hospital Aachen): bedside chest radiographs, findings graded by side.

Grades are ordinal; a shared label is positive where any of its columns reaches a grade. Ages are
in days. The release splits its patients five times; one of the five folds is used.

Source: the data card of TAIX-Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dpmed.data.readers.attributes import clean_age, clean_sex
from dpmed.data.readers.csv_files import find_file, find_optional_file, read_csv_columns
from dpmed.data.readers.harmonise import labels_from_columns, own_labels
from dpmed.data.readers.image_files import locate_images
from dpmed.data.table import rows_named, validate_table
from dpmed.errors import UserError

FINDINGS = (
    "HeartSize", "PulmonaryCongestion", "PleuralEffusion_Right", "PleuralEffusion_Left",
    "PulmonaryOpacities_Right", "PulmonaryOpacities_Left", "Atelectasis_Right", "Atelectasis_Left",
)  # fmt: skip
ANNOTATION_FILES = ("annotation.csv", "annoation.csv")  # the data card spells it both ways
METADATA_COLUMNS = ("UID", "PatientID", "Age", "Sex")
SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
DAYS_PER_YEAR = 365.25
SITE = "taixray"


def read_taixray(
    root: Path | str,
    *,
    labels: Mapping[str, Sequence[str]] | None = None,
    positive_from_grade: float = 3,
    fold: int = 0,
    max_skipped_images: int = 0,
) -> pd.DataFrame:
    """The study table of a TAIX-Ray folder; `image` is relative to `root`.

    Args:
        root: holds `metadata/annotation.csv`, `metadata/split.csv` and `data/<UID>.png`.
        labels: shared label -> graded columns, any of which makes it positive; None gives the
            release's own columns.
        positive_from_grade: the smallest positive grade.
        fold: which of the official folds says train, val and test.
        max_skipped_images: how many listed images may be absent from the folder.

    Raises:
        UserError: a file or column is missing, unreadable or unlike the release.
    """
    folder = Path(root)
    metadata = folder / "metadata" if (folder / "metadata").is_dir() else folder
    path = find_file(metadata, ANNOTATION_FILES, what="the annotations of TAIX-Ray")
    source = str(path)
    rows = read_csv_columns(path, (*METADATA_COLUMNS, *FINDINGS), optional=["Split", "Fold"])
    mapping = own_labels(FINDINGS) if labels is None else labels
    sex, sex_notes = clean_sex(rows["Sex"], source=source)
    days = pd.to_numeric(rows["Age"], errors="coerce")
    age, age_notes = clean_age(days / DAYS_PER_YEAR)
    table = pd.DataFrame(
        {
            "image": rows["UID"] + ".png",
            "patient_id": rows["PatientID"],
            "sex": sex,
            "age": age,
            "site": SITE,
            "split": _splits(metadata, rows, fold),
            **labels_from_columns(
                _positive(rows, positive_from_grade, source), mapping, FINDINGS, source=source
            ),
        }
    )
    table.attrs["notes"] = [
        *age_notes,
        *sex_notes,
        f"grades from {positive_from_grade:g} on are positive",
    ]
    return locate_images(
        validate_table(table, source=source),
        folder,
        suffixes={".png"},
        max_skipped_images=max_skipped_images,
    )


def _positive(rows: pd.DataFrame, positive_from_grade: float, source: str) -> pd.DataFrame:
    """1 where a grade is reached, 0 below it, NaN where there is none."""
    columns = {}
    for name in FINDINGS:
        grades = pd.to_numeric(rows[name], errors="coerce")
        wrong = (rows[name].notna() & ~(grades >= 0)).to_numpy()
        if wrong.any():
            raise UserError(
                f"column {name!r} of {source} must hold grades from 0 on ({rows_named(wrong)}; "
                f"for example {rows[name].to_numpy()[wrong][0]!r})."
            )
        columns[name] = (grades >= positive_from_grade).astype(np.float32).mask(grades.isna())
    return pd.DataFrame(columns)


def _splits(metadata: Path, rows: pd.DataFrame, fold: int) -> pd.Series:
    """The official split of each image in one fold; missing where there is no split file."""
    path = find_optional_file(metadata, ["split.csv"])
    if path is None:
        return pd.Series([np.nan] * len(rows), dtype="str")
    official = read_csv_columns(path, ["UID", "Fold", "Split"])
    folds = pd.to_numeric(official["Fold"], errors="coerce")
    if not (folds == fold).any():
        found = ", ".join(f"{number:g}" for number in sorted(folds.dropna().unique()))
        raise UserError(f"data.fold={fold} is not in {path}, which has the folds {found}.")
    official = official[folds == fold]
    names = official["Split"].str.lower().map(SPLIT_NAMES)
    if (unknown := names.isna().to_numpy()).any():
        raise UserError(f"{path} has a split besides train, val and test ({rows_named(unknown)}).")
    split_of = pd.Series(names.to_numpy(), index=official["UID"].to_numpy())
    if split_of.index.has_duplicates:
        raise UserError(f"{path} lists an image twice in fold {fold}.")
    return rows["UID"].map(split_of).astype("str")
