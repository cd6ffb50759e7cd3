"""The index of a cache: what each row was made from, and the checks when a cache is opened.

One Parquet file with page checksums, so that it is replaced as a whole and damage is found.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet

from dpmed.data.cache.rows import RowRecord, RowSource, stored_hash

LOGGER = logging.getLogger(__name__)
FORMAT_VERSION = 1
ARRAY_NAME, INDEX_NAME = "images.npy", "index.parquet"
NUM_ROWS_CHECKED = 64
ABOUT_KEY = b"dpmed_cache"


@dataclass(frozen=True, kw_only=True)
class CacheIndex:
    """An opened cache: one record a row of the table, and the array of the readable rows."""

    rows: pd.DataFrame
    array: np.ndarray


class DamagedCacheError(Exception):
    """Why a cache cannot be used as it lies there."""


def open_cache(folder: Path, source: RowSource, stamps: np.ndarray) -> CacheIndex | None:
    """The cache in this folder, or None (with a warning) where it has to be built again.

    Checks the size of the array, the checksums of the index, the hashes of a spread of stored
    images, and that no file changed: one whose modification time differs is hashed and compared.

    Args:
        folder: the cache folder.
        source: what its rows are made from.
        stamps: int64 (num_rows, 2), size and modification time of each file now.
    """
    if not folder.is_dir():
        return None
    try:
        rows = read_index(folder / INDEX_NAME)
        if rows["image"].tolist() != list(source.images):
            raise DamagedCacheError("its index lists other images")
        array = np.load(folder / ARRAY_NAME, mmap_mode="r")
        _check_array(array, rows, source)
        changed = np.flatnonzero(rows["mtime_ns"].to_numpy() != stamps[:, 1])
        _check_contents(changed, rows, source)
    except (DamagedCacheError, OSError, ValueError, KeyError, arrow.ArrowException) as error:
        LOGGER.warning("the cache %s is built again: %s", folder, error)
        return None
    return CacheIndex(rows=rows, array=array)


def write_index(
    path: Path, images: Sequence[str], records: Mapping[int, RowRecord], about: Mapping[str, Any]
) -> None:
    """Write one record a row, with the image's name, and sync it to disk."""
    rows = pd.DataFrame([asdict(records[row]) for row in range(len(images))])
    rows.insert(0, "image", list(images))
    content = arrow.Table.from_pandas(rows, preserve_index=False)
    described = json.dumps({"format": FORMAT_VERSION, **about}).encode()
    content = content.replace_schema_metadata({ABOUT_KEY: described})
    with path.open("wb") as file:
        parquet.write_table(content, file, write_page_checksum=True)
        file.flush()
        os.fsync(file.fileno())


def read_index(path: Path) -> pd.DataFrame:
    """The records of a cache, in the order of rows.

    Raises:
        DamagedCacheError: an index of another format; damage also raises pyarrow's own errors.
    """
    content = parquet.read_table(path, page_checksum_verification=True)
    about = json.loads((content.schema.metadata or {}).get(ABOUT_KEY, b"{}"))
    if about.get("format") != FORMAT_VERSION:
        raise DamagedCacheError("its index is of another format")
    return content.to_pandas()


def _check_array(array: np.ndarray, rows: pd.DataFrame, source: RowSource) -> None:
    kept = rows[rows["reason"].isna()]
    expected = (len(kept), *source.image_shape)
    if array.shape != expected or array.dtype != np.uint8:
        raise DamagedCacheError(f"its array has the shape {array.shape}, not {expected}")
    spread = np.unique(np.linspace(0, len(kept) - 1, NUM_ROWS_CHECKED).astype(int))
    hashes = kept["stored_hash"].to_numpy()
    for place in spread if len(kept) else ():
        if stored_hash(array[place]) != hashes[place]:
            raise DamagedCacheError(f"image {place} of its array is damaged")


def _check_contents(changed: np.ndarray, rows: pd.DataFrame, source: RowSource) -> None:
    """Files that were copied keep their content; files that were edited do not."""
    hashes = rows["content_hash"].to_numpy()
    with ThreadPoolExecutor() as pool:  # reading and hashing both leave the interpreter lock
        found = pool.map(source.content_hash, changed.tolist())
        for row, content in zip(changed, found, strict=True):
            if content != hashes[row]:
                raise DamagedCacheError("files changed since it was built")
