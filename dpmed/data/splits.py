"""Which patient is in which split: official lists, or a salted hash of the patient's own id.

The hash looks at one patient's id and nothing else, so adding or removing a patient never moves
another one; the privacy guarantee needs that. Rows without a patient id are hashed by their image.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dpmed.data.table import SPLITS, add_note
from dpmed.errors import UserError

LOGGER = logging.getLogger(__name__)
MAX_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class DuplicateImage:
    """Two rows with the same pixels under two patients."""

    image: str
    other_image: str
    patient_id: str
    other_patient_id: str
    in_two_splits: bool


def assign_splits(
    table: pd.DataFrame, *, validation_fraction: float, test_fraction: float, salt: str
) -> pd.DataFrame:
    """The table with every row in train, validation or test, all rows of a patient in one.

    Where the table has official splits they are kept, and where validation or test is not among
    them, that share of the train patients becomes it. Rows that the official lists leave out join
    their patient's split, or a hashed one.

    Args:
        table: a validated study table.
        validation_fraction: expected share of patients (of the official train patients, where
            there are official splits), at least 0.
        test_fraction: the same for test; not used where there is an official one.
        salt: public text; another salt gives other splits.

    Guarantee:
        A patient's split depends on the salt, the fractions and that patient's own rows, and on
        which official splits the release has.

    Raises:
        UserError: fractions that leave no training part, or a patient in two official splits.
    """
    _check_fractions(validation_fraction, test_fraction)
    check_splits(table)
    official = set(table["split"].dropna().unique())
    units = unit_keys(table)
    uniform = _uniforms(units, f"split:{salt}")
    split = table["split"].fillna(units.map(_split_of_units(table, units)).astype("str"))
    test_share = 0.0 if "test" in official else test_fraction
    validation_share = 0.0 if "validation" in official else validation_fraction
    hashed = np.select(
        [uniform < test_share, uniform < test_share + validation_share],
        ["test", "validation"],
        "train",
    )
    open_rows = split.isna() | (split == "train")
    result = table.assign(split=split.mask(open_rows, pd.Series(hashed, index=table.index)))
    if official and table["split"].isna().any():
        add_note(result, f"{int(table['split'].isna().sum())} images were in no official split")
    return result


def check_splits(table: pd.DataFrame) -> None:
    """Fail where a patient is in two splits.

    Raises:
        UserError: with the number of such patients and the first few.
    """
    known = table.dropna(subset=["patient_id", "split"])
    num_splits = known.groupby("patient_id")["split"].nunique()
    crossing = num_splits.index[num_splits > 1]
    if len(crossing):
        shown = ", ".join(str(name) for name in crossing[:MAX_NAMED])
        raise UserError(
            f"{len(crossing)} patient{'s are' if len(crossing) > 1 else ' is'} in two splits "
            f"({shown}{', ...' if len(crossing) > MAX_NAMED else ''}). A patient belongs to one "
            "split: mend the split column, or leave it out to have dpmed assign splits by patient."
        )


def find_duplicate_images(table: pd.DataFrame, pixel_hashes: Sequence[str]) -> list[DuplicateImage]:
    """Rows with the same pixels under two patient ids, with one warning that counts them.

    Args:
        table: a study table.
        pixel_hashes: one `pixel_hash` a row, in the order of the rows.
    """
    assert len(pixel_hashes) == len(table)
    rows = table[["image", "patient_id", "split"]].assign(pixels=list(pixel_hashes))
    rows = rows[rows["pixels"].duplicated(keep=False) & rows["patient_id"].notna()]
    first = rows.groupby("pixels")[["image", "patient_id", "split"]].transform("first")
    differs = rows["patient_id"] != first["patient_id"]
    duplicates = [
        DuplicateImage(
            image=str(row.image),
            other_image=str(other.image),
            patient_id=str(row.patient_id),
            other_patient_id=str(other.patient_id),
            in_two_splits=str(row.split) != str(other.split),
        )
        for row, other in zip(rows[differs].itertuples(), first[differs].itertuples(), strict=True)
    ]
    if duplicates:
        crossing = sum(duplicate.in_two_splits for duplicate in duplicates)
        LOGGER.warning(
            "%d images have the same pixels as an image of another patient, %d of them in another "
            "split. They may be one person under two ids, whom the guarantee would count twice.",
            len(duplicates),
            crossing,
        )
    return duplicates


def subsample_patients(table: pd.DataFrame, *, fraction: float, salt: str) -> pd.DataFrame:
    """The rows of a share of the patients, chosen by hash; a smaller share is part of a larger.

    Raises:
        UserError: a fraction outside (0, 1], or so small that no patient is left.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"data.fraction={fraction} must be above 0 and at most 1.")
    kept = table[_uniforms(unit_keys(table), f"fraction:{salt}") < fraction]
    if kept.empty:
        raise UserError(f"data.fraction={fraction} leaves none of {len(table)} images.")
    return kept.reset_index(drop=True)


def subsample_train(table: pd.DataFrame, *, fraction: float, salt: str) -> pd.DataFrame:
    """The table with a share of its training patients; the other splits stay whole.

    Chosen as in `subsample_patients`, by each patient's own id, so that one never moves another.

    Args:
        table: a study table with splits.
        fraction: expected share of the training patients, in (0, 1].
        salt: public text; another salt chooses others.

    Raises:
        UserError: as `subsample_patients`.
    """
    is_train = table["split"] == "train"
    chosen = subsample_patients(table[is_train], fraction=fraction, salt=salt)
    kept = table[~is_train | table["image"].isin(chosen["image"])].reset_index(drop=True)
    add_note(kept, f"data.fraction={fraction:g}: a share of the training patients, chosen by hash")
    return kept


def unit_keys(table: pd.DataFrame) -> pd.Series:
    """What is kept together: the patient, or the image where the row names no patient."""
    return ("patient:" + table["patient_id"]).fillna("image:" + table["image"])


def split_hash(table: pd.DataFrame) -> str:
    """SHA-256 of `splits.csv` as `write_splits` writes it; the order of rows does not matter."""
    return hashlib.sha256(_splits_text(table).encode()).hexdigest()


def write_splits(table: pd.DataFrame, path: Path) -> str:
    """Write image, patient_id and split, sorted by image; returns `split_hash(table)`."""
    text = _splits_text(table)
    path.write_bytes(text.encode())
    return hashlib.sha256(text.encode()).hexdigest()


def _splits_text(table: pd.DataFrame) -> str:
    assert table["split"].isin(SPLITS).all(), "assign_splits comes first"
    columns = ["image", "patient_id", "split"]
    rows = table[columns].fillna("").sort_values("image").itertuples(index=False, name=None)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def _uniforms(units: pd.Series, purpose: str) -> np.ndarray:
    """A number in [0, 1) for each row, from its own unit and the purpose alone."""
    codes, unique = pd.factorize(units)
    key = hashlib.blake2b(purpose.encode(), digest_size=32).digest()
    words = [
        hashlib.blake2b(str(unit).encode(), key=key, digest_size=8).digest() for unit in unique
    ]
    # The upper 53 bits, so that no value rounds up to 1.
    bits = np.frombuffer(b"".join(words), dtype=">u8") >> np.uint64(11)
    return (bits.astype(np.float64) / 2.0**53)[codes]


def _split_of_units(table: pd.DataFrame, units: pd.Series) -> pd.Series:
    known = table["split"].notna()
    return table["split"][known].groupby(units[known]).first()


def _check_fractions(validation_fraction: float, test_fraction: float) -> None:
    for name, value in [
        ("data.validation_fraction", validation_fraction),
        ("data.test_fraction", test_fraction),
    ]:
        if not 0 <= value < 1:
            raise UserError(f"{name}={value} must be at least 0 and below 1.")
    if validation_fraction + test_fraction >= 1:
        raise UserError(
            f"data.validation_fraction={validation_fraction} and "
            f"data.test_fraction={test_fraction} leave no patients to train on."
        )
