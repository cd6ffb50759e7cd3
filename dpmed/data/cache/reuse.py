"""Rows that another cache with the same preprocessing already holds, copied instead of decoded.

A few mended files, another view filter or a smaller share of the patients make another cache; only
what is new in it is decoded.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as arrow

from dpmed.data.cache.index import ARRAY_NAME, INDEX_NAME, DamagedCacheError, read_index
from dpmed.data.cache.rows import RowRecord, RowSource, stored_hash

LOGGER = logging.getLogger(__name__)


def reuse_rows(
    folder: Path,
    array_path: Path,
    offset: int,
    source: RowSource,
    stamps: np.ndarray,
    *,
    done: dict[int, RowRecord],
) -> dict[int, RowRecord]:
    """Copy rows of the caches beside `folder` into the array; returns their records.

    A row is taken where name, size and modification time are the same and the stored image is
    whole.

    Args:
        folder: the cache being built; its siblings have the same preprocessing.
        array_path: the array being built.
        offset: length of its header in bytes.
        source: the rows that are wanted.
        stamps: int64 (num_rows, 2), size and modification time of each file now.
        done: rows that are in the array already.
    """
    wanted = {
        (image, int(size), int(mtime_ns)): row
        for row, (image, (size, mtime_ns)) in enumerate(zip(source.images, stamps, strict=True))
        if row not in done
    }
    found: dict[int, RowRecord] = {}
    for sibling in sorted(folder.parent.iterdir()):
        if wanted and (sibling / INDEX_NAME).is_file() and sibling.suffix != ".partial":
            try:
                rows, array = _read(sibling)
            except (DamagedCacheError, OSError, ValueError, KeyError, arrow.ArrowException):
                continue  # a cache in use is checked, and warned about, where it is opened
            found |= _copy(rows, array, array_path, offset, wanted)
    if found:
        LOGGER.info("%d images were taken from other caches", len(found))
    return found


def _read(sibling: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The readable rows of a cache and their images."""
    rows = read_index(sibling / INDEX_NAME)
    rows = rows[rows["reason"].isna()].reset_index(drop=True)
    array = np.load(sibling / ARRAY_NAME, mmap_mode="r")
    if len(array) != len(rows):
        raise DamagedCacheError("its array and its index differ")
    return rows, array


def _copy(
    rows: pd.DataFrame,
    array: np.ndarray,
    array_path: Path,
    offset: int,
    wanted: dict[tuple[str, int, int], int],
) -> dict[int, RowRecord]:
    """Copy what `wanted` names, and take it out of `wanted`."""
    found: dict[int, RowRecord] = {}
    with array_path.open("r+b") as target:
        for place, known in enumerate(_names(rows)):
            if known not in wanted or stored_hash(array[place]) != rows["stored_hash"][place]:
                continue
            row = wanted.pop(known)
            os.pwrite(target.fileno(), array[place].tobytes(), offset + row * array[place].nbytes)
            found[row] = RowRecord(
                row=row,
                size=known[1],
                mtime_ns=known[2],
                content_hash=str(rows["content_hash"][place]),
                pixel_hash=str(rows["pixel_hash"][place]),
                stored_hash=str(rows["stored_hash"][place]),
                inverted=bool(rows["inverted"][place]),
            )
    return found


def _names(rows: pd.DataFrame) -> list[tuple[str, int, int]]:
    columns = (rows["image"].tolist(), rows["size"].tolist(), rows["mtime_ns"].tolist())
    return list(zip(*columns, strict=True))
