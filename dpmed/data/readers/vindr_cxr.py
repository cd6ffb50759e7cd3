"""VinDr-CXR (Hanoi): 18,000 chest radiographs in DICOM, 28 findings, three readers an image.

A training image takes the majority of its readers; the test images have one consensus row. The
release names no patients, so its privacy unit is the image, and sex and age are missing.

Source: Nguyen et al., VinDr-CXR, Scientific Data 2022. Headers are from memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dpmed.data.readers.csv_files import find_file, read_csv_columns
from dpmed.data.readers.harmonise import labels_from_columns, own_labels
from dpmed.data.readers.image_files import locate_images
from dpmed.data.table import rows_named, validate_table
from dpmed.errors import UserError

FINDINGS = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
    "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion",
    "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding",
)  # fmt: skip
LABEL_FILES = {"train": "image_labels_train.csv", "test": "image_labels_test.csv"}
SITE = "vindr_cxr"


def read_vindr_cxr(
    root: Path | str,
    *,
    labels: Mapping[str, Sequence[str]] | None = None,
    max_skipped_images: int = 0,
) -> pd.DataFrame:
    """The study table of a VinDr-CXR folder; `image` is relative to `root`.

    Args:
        root: holds `annotations/` (or the label files themselves), `train/` and `test/`.
        labels: shared label -> findings of the release, any of which makes it positive; None gives
            all 28. Only the columns that are used must be there.
        max_skipped_images: how many listed images may be absent from the folder.

    Raises:
        UserError: a file or column is missing, unreadable or unlike the release.
    """
    folder = Path(root)
    mapping = own_labels(FINDINGS) if labels is None else labels
    used = list(dict.fromkeys(name for names in mapping.values() for name in names))
    annotations = folder / "annotations" if (folder / "annotations").is_dir() else folder
    parts = []
    notes = []
    for split, name in LABEL_FILES.items():
        path = find_file(annotations, [name], what=f"the {split} labels of VinDr-CXR")
        votes, num_ties = _majority(path, used)
        if num_ties:
            notes.append(f"{num_ties} {split} labels without a majority of readers are missing")
        values = labels_from_columns(votes, mapping, used, source=str(path))
        parts.append(pd.DataFrame({"image": votes.index, "split": split, "site": SITE, **values}))
    table = pd.concat(parts, ignore_index=True)
    table.attrs["notes"] = notes
    table = validate_table(table, source=str(annotations))
    table["image"] = table["image"] + ".dicom"
    return locate_images(table, folder, suffixes={".dicom"}, max_skipped_images=max_skipped_images)


def _majority(path: Path, findings: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """One row an image, 1 / 0 / NaN by the majority of its readers, and the number of ties."""
    rows = read_csv_columns(path, ["image_id", *findings], optional=["rad_id"])
    values = rows[list(findings)].apply(pd.to_numeric, errors="coerce")
    wrong = (~values.isin([0.0, 1.0])).any(axis=1).to_numpy()
    if wrong.any():
        raise UserError(f"{path} has labels other than 0 and 1 ({rows_named(wrong)}).")
    if "rad_id" in rows:
        repeated = rows.duplicated(["image_id", "rad_id"]).to_numpy()
        if repeated.any():
            raise UserError(f"{path} has a reader twice for an image ({rows_named(repeated)}).")
    share = values.groupby(rows["image_id"], sort=False).mean()
    ties = share == 0.5
    return (share > 0.5).astype(np.float32).mask(ties), int(ties.to_numpy().sum())
