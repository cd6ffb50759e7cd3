"""The study table of a 3-D MedMNIST file: its official splits and its classes as labels.

Source: Yang et al. 2023, MedMNIST v2 (doi 10.1038/s41597-022-01721-8). The files name no patients.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpmed.data.table import add_note, validate_table
from dpmed.errors import UserError

SPLIT_OF_PART = {"train": "train", "val": "validation", "test": "test"}


def read_medmnist(path: Path | str, *, labels: Sequence[str]) -> pd.DataFrame:
    """One row a volume, named `<part>/<number>`, in the file's order; opens no volume.

    Args:
        path: such as adrenalmnist3d_64.npz.
        labels: the classes' names in order; one name alone means class 1 of a file of two classes.

    Raises:
        UserError: no such file, arrays missing, or another number of classes.
    """
    source = Path(path)
    classes = {part: _read_classes(source, f"{part}_labels") for part in SPLIT_OF_PART}
    num_classes = 1 + max(int(values.max()) for values in classes.values())
    if len(labels) != num_classes and not (len(labels) == 1 and num_classes == 2):
        raise UserError(
            f"{source.name} has {num_classes} classes and data.labels names {len(labels)}. Name "
            "each class in order" + (", or class 1 alone." if num_classes == 2 else ".")
        )
    frames = []
    for part, values in classes.items():
        names = [f"{part}/{number}" for number in range(len(values))]
        frame = pd.DataFrame({"image": names, "split": SPLIT_OF_PART[part]})
        for number, label in enumerate(labels):
            frame[label] = values == (1 if len(labels) == 1 else number)
        frames.append(frame)
    table = validate_table(pd.concat(frames, ignore_index=True), list(labels), source=source.name)
    add_note(table, f"{source.name} names no patients: volumes of one patient cannot be told")
    return table


def _read_classes(source: Path, name: str) -> NDArray[np.int64]:
    if not source.is_file():
        raise UserError(f"data.path={source} is not a file.")
    try:
        with np.load(source, allow_pickle=False) as file:
            if name not in file:
                raise UserError(
                    f"{source} lacks {name!r}, so it is no MedMNIST file. It has: "
                    f"{', '.join(file.files)}."
                )
            values = file[name]
    except (OSError, ValueError, BadZipFile, zlib.error) as error:
        raise UserError(f"cannot read {source} as .npz: {type(error).__name__}.") from None
    if values.dtype.kind not in "iu" or values.size == 0 or values.size != len(values):
        raise UserError(
            f"{name} of {source} must hold one class number a volume, and has the shape "
            f"{values.shape} of {values.dtype}."
        )
    return values.reshape(-1).astype(np.int64)
