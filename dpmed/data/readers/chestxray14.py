"""ChestX-ray14 (NIH): 112,120 frontal chest radiographs of 30,805 patients, 14 findings.

Reads the official files `Data_Entry_2017_v2020.csv`, `train_val_list.txt` and `test_list.txt` (also
zipped), the older `Data_Entry_2017.csv` and the public sample's `sample_labels.csv`, into the study
table. The header of the official file has unquoted commas inside brackets, older releases write
ages as 058Y, and some ages are impossible.

Source: Wang et al., ChestX-ray8, CVPR 2017.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from dpmed.data.readers.attributes import clean_age, clean_sex
from dpmed.data.readers.csv_files import find_file, open_text, read_csv_columns
from dpmed.data.readers.harmonise import labels_from_findings, own_labels
from dpmed.data.readers.image_files import locate_images
from dpmed.data.table import validate_table
from dpmed.errors import UserError

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis",
    "Hernia", "Infiltration", "Mass", "No Finding", "Nodule", "Pleural_Thickening", "Pneumonia",
    "Pneumothorax",
)  # fmt: skip
METADATA_FILES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "sample_labels.csv")
SPLIT_FILES = {"train": "train_val_list.txt", "test": "test_list.txt"}
METADATA_COLUMNS = (
    "Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender",
    "View Position",
)  # fmt: skip
SITE = "chestxray14"


def read_chestxray14(
    root: Path | str,
    *,
    labels: Mapping[str, Sequence[str]] | None = None,
    split_lists: Path | str | None = None,
    max_skipped_images: int = 0,
) -> pd.DataFrame:
    """The study table of a ChestX-ray14 folder; `image` is relative to `root`.

    Args:
        root: holds the metadata file, and the images in `images_001/images/` to
            `images_012/images/`, in `images/`, or in itself.
        labels: shared label -> findings of the release, any of which makes it positive; an empty
            list makes a label missing throughout. None gives the release's own 15 labels.
        split_lists: folder of the official split lists, where `root` has none.
        max_skipped_images: how many listed images may be absent from the folder.

    Raises:
        UserError: a file or column is missing, unreadable or unlike the release.
    """
    folder = Path(root)
    path = find_file(folder, METADATA_FILES, what="the metadata of ChestX-ray14")
    table = read_chestxray14_metadata(path, labels=labels)
    table = _with_official_splits(table, folder if split_lists is None else Path(split_lists))
    if split_lists is not None and table["split"].isna().all():
        raise UserError(f"data.split_lists={split_lists} names none of the images of {path}.")
    return locate_images(table, folder, suffixes={".png"}, max_skipped_images=max_skipped_images)


def read_chestxray14_metadata(
    path: Path, *, labels: Mapping[str, Sequence[str]] | None = None
) -> pd.DataFrame:
    """The study table of the metadata file alone; `image` is the bare file name."""
    entries = read_csv_columns(path, METADATA_COLUMNS, fix_header=_split_bracket_columns)
    mapping = own_labels(FINDINGS) if labels is None else labels
    sex, sex_notes = clean_sex(entries["Patient Gender"], source=str(path))
    age, age_notes = clean_age(entries["Patient Age"])
    table = pd.DataFrame(
        {
            "image": entries["Image Index"],
            "patient_id": entries["Patient ID"],
            "study_id": entries["Patient ID"] + "_" + entries["Follow-up #"],
            "sex": sex,
            "age": age,
            "view": entries["View Position"],
            "site": SITE,
            **labels_from_findings(
                entries["Finding Labels"].str.split("|"), mapping, FINDINGS, source=str(path)
            ),
        }
    )
    table.attrs["notes"] = [*age_notes, *sex_notes]
    return validate_table(table, source=str(path))


def chestxray14_metadata_sha256(root: Path | str) -> str:
    """SHA-256 of the metadata file (unzipped), by which a public release is recognised.

    It identifies the release and looks at no row.
    """
    path = find_file(Path(root), METADATA_FILES, what="the metadata of ChestX-ray14")
    try:
        content = path.read_bytes()
        return hashlib.sha256(
            gzip.decompress(content) if path.suffix == ".gz" else content
        ).hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def has_split_lists(folder: Path | str) -> bool:
    """True where both official split lists lie in the folder."""
    return len(_split_list_paths(Path(folder))) == len(SPLIT_FILES)


def _split_bracket_columns(header: list[str], num_fields: int) -> list[str]:
    """Two names for each quoted 'Original...[x,y]' whose values still fill two fields.

    Files that were saved again with a quoted header have 9 names and 11 fields a row.
    """
    if len(header) >= num_fields:
        return header
    names = []
    for name in header:
        inside = re.fullmatch(r"(.*)\[(.+),(.+)\]", name)
        names += [f"{inside[1]}[{inside[2]}", f"{inside[3]}]"] if inside else [name]
    return names


def _with_official_splits(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The `split` column from the two official lists; unchanged where there is neither."""
    present = _split_list_paths(folder)
    if not present:
        return table
    if len(present) < len(SPLIT_FILES):
        absent = next(name for split, name in SPLIT_FILES.items() if split not in present)
        raise UserError(f"{folder} has one of the two official split lists but not {absent}.")
    split_of = {image: split for split, path in present.items() for image in _read_list(path)}
    return table.assign(split=table["image"].map(split_of).astype("str"))


def _split_list_paths(folder: Path) -> dict[str, Path]:
    return {
        split: path
        for split, name in SPLIT_FILES.items()
        for path in (folder / f"{name}.gz", folder / name)
        if path.is_file()
    }


def _read_list(path: Path) -> list[str]:
    try:
        with open_text(path) as file:
            return file.read().split()
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"cannot read the split list {path}: {error}") from None
