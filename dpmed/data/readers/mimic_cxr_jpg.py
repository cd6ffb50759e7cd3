"""MIMIC-CXR-JPG (Boston): 377,110 chest radiographs of 65,379 patients, 14 labels from reports.

Reads the metadata, label and split files, and sex and age from MIMIC-IV's `patients.csv` where it
is at hand.

Source: Johnson et al., MIMIC-CXR-JPG, arXiv:1901.07042. The header of the metadata was read from
the file itself, those of the other three are from memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dpmed.data.readers.attributes import clean_age, clean_sex
from dpmed.data.readers.chexpert_labels import (
    CHEXPERT_LABELS,
    BlankPolicy,
    UncertainPolicy,
    chexpert_labels,
)
from dpmed.data.readers.csv_files import find_file, find_optional_file, read_csv_columns
from dpmed.data.readers.views import keep_views
from dpmed.data.table import rows_named, validate_table
from dpmed.errors import UserError

PREFIX = "mimic-cxr-2.0.0"
SPLIT_NAMES = {"train": "train", "validate": "validation", "test": "test"}
METADATA_COLUMNS = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate")
SITE = "mimic_cxr"


def read_mimic_cxr_jpg(
    root: Path | str,
    *,
    labels: Mapping[str, Sequence[str]] | None = None,
    uncertain: UncertainPolicy = "missing",
    blank: BlankPolicy = "missing",
    views: Sequence[str] | None = ("PA", "AP"),
    patients_csv: Path | str | None = None,
) -> pd.DataFrame:
    """The study table of a MIMIC-CXR-JPG folder; `image` is relative to `root`.

    Args:
        root: holds the csv files (plain or .gz) and the folder files/.
        labels: shared label -> columns of the release, any of which makes it positive; None gives
            the release's own 14 labels.
        uncertain: what the value -1 means.
        blank: what an empty label means; a study that was not labelled stays missing.
        views: values of ViewPosition to keep; None keeps all.
        patients_csv: MIMIC-IV's patients.csv, where it is not in `root`; without it sex and age
            are missing.

    Raises:
        UserError: a file or column is missing, unreadable or unlike the release.
    """
    folder = Path(root)
    images = _read(folder, "metadata", METADATA_COLUMNS)
    source = str(folder / f"{PREFIX}-metadata.csv")
    values, label_notes = _labels(folder, images, labels, uncertain=uncertain, blank=blank)
    sex, age, person_notes = _people(folder, images, patients_csv)
    table = pd.DataFrame(
        {
            "image": _paths(images),
            "patient_id": images["subject_id"],
            "study_id": images["study_id"],
            "sex": sex,
            "age": age,
            "view": images["ViewPosition"],
            "site": SITE,
            "split": _splits(folder, images),
            **values,
        }
    )
    table.attrs["notes"] = [*person_notes, *label_notes]
    if not (folder / "files").is_dir():
        raise UserError(f"{folder} holds the metadata but no folder files/ with the images.")
    return keep_views(validate_table(table, source=source), views, source=source)


def _read(folder: Path, part: str, columns: Sequence[str]) -> pd.DataFrame:
    path = find_file(folder, [f"{PREFIX}-{part}.csv"], what=f"the {part} of MIMIC-CXR-JPG")
    return read_csv_columns(path, columns)


def _paths(images: pd.DataFrame) -> pd.Series:
    subject = "p" + images["subject_id"]
    return (
        "files/" + subject.str.slice(0, 3) + "/" + subject + "/s" + images["study_id"] + "/"
        + images["dicom_id"] + ".jpg"
    )  # fmt: skip


def _labels(
    folder: Path,
    images: pd.DataFrame,
    mapping: Mapping[str, Sequence[str]] | None,
    *,
    uncertain: UncertainPolicy,
    blank: BlankPolicy,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Labels of each image's study."""
    studies = _read(folder, "chexpert", ["subject_id", "study_id", *CHEXPERT_LABELS])
    source = str(folder / f"{PREFIX}-chexpert.csv")
    values, notes = chexpert_labels(
        studies, mapping, uncertain=uncertain, blank=blank, source=source
    )
    rows = _positions(studies["study_id"], images["study_id"], source=source)
    unlabelled = int((rows < 0).sum())
    if unlabelled:
        notes.append(f"{unlabelled} images are of studies without labels, which stay missing")
    # Row -1, a study that is not in the file, takes the last entry, NaN.
    return {name: np.append(column, np.nan)[rows] for name, column in values.items()}, notes


def _splits(folder: Path, images: pd.DataFrame) -> pd.Series:
    official = _read(folder, "split", ["dicom_id", "study_id", "subject_id", "split"])
    source = str(folder / f"{PREFIX}-split.csv")
    unknown = (~official["split"].isin(SPLIT_NAMES)).to_numpy()
    if unknown.any():
        raise UserError(f"{source} has splits other than train, validate and test "
                        f"({rows_named(unknown)}).")  # fmt: skip
    rows = _positions(official["dicom_id"], images["dicom_id"], source=source)
    names = np.array([*official["split"].map(SPLIT_NAMES), None], dtype=object)
    return pd.Series(names[rows])


def _people(
    folder: Path, images: pd.DataFrame, patients_csv: Path | str | None
) -> tuple[pd.Series | float, pd.Series | float, list[str]]:
    """Sex, and the age in the study's year, which MIMIC-IV shifts together with `anchor_year`."""
    path = Path(patients_csv) if patients_csv else find_optional_file(folder, ["patients.csv"])
    if path is None:
        return np.nan, np.nan, ["no patients.csv of MIMIC-IV, so sex and age are missing"]
    people = read_csv_columns(path, ["subject_id", "gender", "anchor_age", "anchor_year"])
    rows = _positions(people["subject_id"], images["subject_id"], source=str(path))
    of_images = people.reindex(np.where(rows < 0, len(people), rows)).reset_index(drop=True)
    sex, sex_notes = clean_sex(of_images["gender"], source=str(path))
    study_year = pd.to_numeric(images["StudyDate"].str.slice(0, 4), errors="coerce")
    anchor_age = pd.to_numeric(of_images["anchor_age"], errors="coerce")
    anchor_year = pd.to_numeric(of_images["anchor_year"], errors="coerce")
    age, age_notes = clean_age(anchor_age + study_year - anchor_year)
    return sex, age, [*age_notes, *sex_notes]


def _positions(keys: pd.Series, wanted: pd.Series, *, source: str) -> np.ndarray:
    """The row of `keys` for each wanted key, -1 where there is none."""
    repeated = keys.duplicated().to_numpy()
    if repeated.any():
        raise UserError(f"{source} repeats values of {keys.name!r} ({rows_named(repeated)}).")
    return pd.Index(keys).get_indexer(wanted)
