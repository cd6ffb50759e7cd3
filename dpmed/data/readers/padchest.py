"""PadChest (Alicante): 160,868 chest radiographs of 67,625 patients, findings from reports.

Reads the table of 160K images. Findings are a Python list written as text. The release has no
official splits.

Source: Bustos et al., PadChest, Medical Image Analysis 2020. Header partly read from the file.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dpmed.data.readers.attributes import clean_age, clean_sex
from dpmed.data.readers.csv_files import find_file, read_csv_columns
from dpmed.data.readers.harmonise import labels_from_findings, own_labels
from dpmed.data.readers.image_files import locate_images
from dpmed.data.readers.views import keep_views
from dpmed.data.table import rows_named, validate_table
from dpmed.errors import UserError

METADATA_FILES = (
    "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",
    "PADCHEST_chest_x_ray_images_labels_160K.csv",
)
METADATA_COLUMNS = (
    "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth",
    "PatientSex_DICOM", "Projection", "Labels",
)  # fmt: skip
# Findings that a mapping may name although a part of the release does not contain them.
COMMON_FINDINGS = (
    "alveolar pattern", "atelectasis", "atypical pneumonia", "cardiomegaly", "consolidation",
    "copd signs", "emphysema", "fracture", "hernia", "infiltrates", "interstitial pattern",
    "laminar atelectasis", "lobar atelectasis", "loculated pleural effusion", "mass", "nodule",
    "normal", "pleural effusion", "pleural thickening", "pneumonia", "pneumothorax",
    "pulmonary fibrosis", "segmental atelectasis", "total atelectasis", "tuberculosis",
)  # fmt: skip
# Reports that say nothing of the picture itself: their labels are missing, not negative.
UNINFORMATIVE = (frozenset({"exclude"}), frozenset({"unchanged"}))
SITE = "padchest"


def read_padchest(
    root: Path | str,
    *,
    labels: Mapping[str, Sequence[str]] | None = None,
    views: Sequence[str] | None = ("PA", "AP", "AP_horizontal"),
    max_skipped_images: int = 0,
) -> pd.DataFrame:
    """The study table of a PadChest folder; `image` is relative to `root`.

    Args:
        root: holds the table and the images, in itself, in `images/` or in folders 0, 1, ...
        labels: shared label -> findings, any of which makes it positive; None gives every finding
            of `COMMON_FINDINGS`.
        views: values of Projection to keep; None keeps all.
        max_skipped_images: how many listed images may be absent from the folder.

    Raises:
        UserError: a file or column is missing, unreadable or unlike the release.
    """
    folder = Path(root)
    path = find_file(folder, METADATA_FILES, what="the table of PadChest")
    rows = read_csv_columns(path, METADATA_COLUMNS)
    source = str(path)
    findings = _findings(rows["Labels"], source)
    known = sorted({*COMMON_FINDINGS, *(name for names in findings.dropna() for name in names)})
    mapping = own_labels(COMMON_FINDINGS) if labels is None else labels
    sex, sex_notes = clean_sex(rows["PatientSex_DICOM"], source=source)
    study_year = pd.to_numeric(rows["StudyDate_DICOM"].str.slice(0, 4), errors="coerce")
    age, age_notes = clean_age(study_year - pd.to_numeric(rows["PatientBirth"], errors="coerce"))
    table = pd.DataFrame(
        {
            "image": rows["ImageID"],
            "patient_id": rows["PatientID"],
            "study_id": rows["StudyID"],
            "sex": sex,
            "age": age,
            "view": rows["Projection"],
            "site": SITE,
            **labels_from_findings(findings, mapping, known, source=source),
        }
    )
    empty = int((findings.isna()).sum())
    notes = [f"{empty} images without a usable finding, which stay missing"] if empty else []
    table.attrs["notes"] = [*age_notes, *sex_notes, *notes]
    table = keep_views(validate_table(table, source=source), views, source=source)
    return locate_images(table, folder, suffixes={".png"}, max_skipped_images=max_skipped_images)


def _findings(text: pd.Series, source: str) -> pd.Series:
    """Each row's findings as a tuple, or missing where the report says nothing of the picture."""
    codes, lists = pd.factorize(text)
    parsed = [_parse(value) for value in lists]
    wrong = np.array([*(names is None for names in parsed), False])[codes]
    if wrong.any():
        raise UserError(
            f"column 'Labels' of {source} must hold Python lists such as ['normal'] "
            f"({rows_named(wrong)}; for example {text.to_numpy()[wrong][0]!r})."
        )
    values = np.full(len(parsed) + 1, None, dtype=object)  # the last one is for blank fields
    for place, names in enumerate(parsed):
        if names and frozenset(names) not in UNINFORMATIVE:
            values[place] = names
    return pd.Series(values[codes])


def _parse(value: str) -> tuple[str, ...] | None:
    try:
        names = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(names, list):
        return None
    return tuple(name for name in (str(name).strip().lower() for name in names) if name)
