"""CheXpert (Stanford): 224,316 chest radiographs of 65,240 patients, 14 labels from reports.

Reads `train.csv` and, where it is there, `valid.csv`. Patient and study are inside the path. There
is no official test list for everyone, so a test part is taken by patient from train.

Source: Irvin et al., CheXpert, AAAI 2019. Header read from the file itself.
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

FRONTAL_VIEWS = ("PA", "AP", "LL", "RL")  # what the column AP/PA says of frontal images
METADATA_COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
SITE = "chexpert"


def read_chexpert(
    root: Path | str,
    *,
    labels: Mapping[str, Sequence[str]] | None = None,
    uncertain: UncertainPolicy = "missing",
    blank: BlankPolicy = "missing",
    views: Sequence[str] | None = FRONTAL_VIEWS,
) -> pd.DataFrame:
    """The study table of a CheXpert folder; `image` is relative to `root`.

    Args:
        root: holds train.csv.
        labels: shared label -> columns of the release, any of which makes it positive; None gives
            the release's own 14 labels.
        uncertain: what the value -1 means.
        blank: what an empty label means.
        views: PA, AP, LL, RL (frontal images) or LATERAL; None keeps all.

    Raises:
        UserError: a file or column is missing, unreadable or unlike the release.
    """
    folder = Path(root)
    files = {"train": find_file(folder, ["train.csv"], what="the metadata of CheXpert")}
    if (validation := find_optional_file(folder, ["valid.csv"])) is not None:
        files["validation"] = validation
    rows = pd.concat(
        [
            read_csv_columns(path, (*METADATA_COLUMNS, *CHEXPERT_LABELS)).assign(split=split)
            for split, path in files.items()
        ],
        ignore_index=True,
    )
    source = str(files["train"])
    paths = _paths(rows["Path"], source)
    lateral = rows["Frontal/Lateral"].str.lower() == "lateral"
    sex, sex_notes = clean_sex(rows["Sex"], source=source)
    age, age_notes = clean_age(rows["Age"])
    values, label_notes = chexpert_labels(
        rows, labels, uncertain=uncertain, blank=blank, source=source
    )
    table = pd.DataFrame(
        {
            "image": _relative_to(folder, paths),
            "patient_id": [path[2] for path in paths],
            "study_id": [f"{path[2]}_{path[3]}" for path in paths],
            "sex": sex,
            "age": age,
            "view": rows["AP/PA"].mask(lateral, "LATERAL"),
            "site": SITE,
            "split": rows["split"],
            **values,
        }
    )
    table.attrs["notes"] = [*age_notes, *sex_notes, *label_notes]
    return keep_views(validate_table(table, source=source), views, source=source)


def _paths(paths: pd.Series, source: str) -> list[list[str]]:
    """Each path as archive, part, patient, study and file."""
    pieces = [str(path).split("/") for path in paths]
    unlike = np.array(
        [
            len(path) != 5 or not path[2].startswith("patient") or not path[3].startswith("study")
            for path in pieces
        ]
    )
    if unlike.any():
        raise UserError(
            f"{source} has paths unlike CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg "
            f"({rows_named(unlike)})."
        )
    return pieces


def _relative_to(folder: Path, paths: list[list[str]]) -> list[str]:
    """Paths start with the archive's folder (CheXpert-v1.0/...), which may be `root` itself."""
    archive, part = paths[0][:2]
    if (folder / archive / part).is_dir():
        return ["/".join(path) for path in paths]
    if (folder / part).is_dir():
        return ["/".join(path[1:]) for path in paths]
    raise UserError(
        f"{folder} holds train.csv but neither the folder {part}/ nor {archive}/{part}/. "
        "data.root is the folder with train.csv and the images' folders."
    )
