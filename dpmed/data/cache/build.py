"""Building a cache: rows made in parallel, written in place, journalled, then renamed as a whole.

The work in progress lies in `<key>.partial`: the array at its full size from the start, so that a
full disk shows at once, and a journal of finished rows. A later run checks the journalled rows and
goes on behind them.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dpmed.data.cache.index import (
    ARRAY_NAME,
    INDEX_NAME,
    CacheIndex,
    open_cache,
    write_index,
)
from dpmed.data.cache.reuse import reuse_rows
from dpmed.data.cache.rows import RowRecord, RowSource, stored_hash
from dpmed.data.cache.workers import make_rows
from dpmed.errors import UserError

LOGGER = logging.getLogger(__name__)
JOURNAL_NAME = "journal.jsonl"
FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


def build_cache(
    folder: Path,
    source: RowSource,
    stamps: np.ndarray,
    *,
    about: Mapping[str, Any],
    num_workers: int | None,
    progress: bool,
) -> CacheIndex:
    """Make every row and put the complete cache under its name.

    Args:
        folder: the cache folder to make.
        source: makes the rows.
        stamps: int64 (num_rows, 2), size and modification time of each file now.
        about: what the index says of the cache.
        num_workers: processes; 0 means this one, None all cores where there is enough to do.
        progress: show a progress bar.

    Guarantee:
        The folder appears only when complete. Rows finished before a kill, a full disk or an
        interrupt are not made again by the next run.

    Raises:
        UserError: the disk is full, or the cache folder cannot be written.
    """
    with _told_plainly(folder, source), _only_builder(folder) as waited:
        if waited and (index := open_cache(folder, source, stamps)):
            return index  # another process built it meanwhile
        partial = folder.with_name(f"{folder.name}.partial")
        partial.mkdir(exist_ok=True)
        offset = _allocate(partial / ARRAY_NAME, source)
        records = _resume(partial, source, stamps)
        records |= reuse_rows(folder, partial / ARRAY_NAME, offset, source, stamps, done=records)
        _make_missing(partial, offset, source, records, num_workers, progress)
        _finish(partial, folder, source, records, about)
        index = open_cache(folder, source, stamps)
    assert index is not None, "a cache that was just built does not open"
    return index


def _make_missing(
    partial: Path,
    offset: int,
    source: RowSource,
    records: dict[int, RowRecord],
    num_workers: int | None,
    progress: bool,
) -> None:
    missing = [row for row in range(len(source.images)) if row not in records]
    chunks = [
        missing[start : start + source.chunk_rows]
        for start in range(0, len(missing), source.chunk_rows)
    ]
    with (
        (partial / JOURNAL_NAME).open("a") as journal,
        tqdm(
            total=len(source.images),
            initial=len(records),
            desc="preparing images",
            unit="image",
            disable=not progress,
        ) as bar,
    ):
        for made in make_rows(
            chunks, source, array_path=partial / ARRAY_NAME, offset=offset, num_workers=num_workers
        ):
            journal.write(json.dumps([asdict(record) for record in made]) + "\n")
            journal.flush()
            records.update({record.row: record for record in made})
            bar.update(len(made))


def _allocate(path: Path, source: RowSource) -> int:
    """Give the array its full size, keeping rows that are there; returns the header's length."""
    shape = (len(source.images), *source.image_shape)
    header = _npy_header(shape)
    num_bytes = len(header) + int(np.prod(shape))
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(header)
        file.flush()
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        elif shutil.disk_usage(path.parent).free < num_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(file.fileno(), num_bytes)
    return len(header)


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def _resume(partial: Path, source: RowSource, stamps: np.ndarray) -> dict[int, RowRecord]:
    """Records of a killed run whose file is unchanged and whose stored image is whole."""
    journal = partial / JOURNAL_NAME
    records: dict[int, RowRecord] = {}
    for line in journal.read_text().splitlines() if journal.exists() else ():
        try:
            found = [RowRecord(**fields) for fields in json.loads(line)]
        except (ValueError, TypeError):
            continue  # the line that was being written when the run was killed
        records.update({record.row: record for record in found})
    array = np.load(partial / ARRAY_NAME, mmap_mode="r")
    kept = {
        row: record
        for row, record in records.items()
        if (record.size, record.mtime_ns) == tuple(stamps[row])
        and record.reason is None
        and stored_hash(array[row]) == record.stored_hash
    }
    if kept:
        LOGGER.info("%d of %d images were prepared before", len(kept), len(source.images))
    return kept


def _finish(
    partial: Path,
    folder: Path,
    source: RowSource,
    records: dict[int, RowRecord],
    about: Mapping[str, Any],
) -> None:
    array_path = partial / ARRAY_NAME
    kept = [row for row in range(len(source.images)) if records[row].reason is None]
    if not kept:
        raise UserError(
            f"none of the {len(source.images)} images can be read; the first, "
            f"{source.images[0]}: {records[0].reason}. Check data.root."
        )
    if len(kept) < len(source.images):
        _write_kept(array_path, kept)
    with array_path.open("r+b") as file:
        os.fsync(file.fileno())
    write_index(partial / INDEX_NAME, source.images, records, about)
    (partial / JOURNAL_NAME).unlink()
    replaced = folder.with_name(f"{folder.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.rename(replaced)
    partial.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def _write_kept(array_path: Path, kept: list[int]) -> None:
    """Leave out the rows that could not be read, in a second file that takes the array's place."""
    array = np.load(array_path, mmap_mode="r")
    target = array_path.with_suffix(".kept")
    with target.open("wb") as file:
        file.write(_npy_header((len(kept), *array.shape[1:])))
        for row in kept:
            file.write(array[row].data)
    target.replace(array_path)


@contextmanager
def _only_builder(folder: Path) -> Iterator[bool]:
    """Wait until no other process builds this cache; gives True where that took a while."""
    waited = False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOGGER.info("waiting for another process that prepares the same images")
            fcntl.flock(lock, fcntl.LOCK_EX)
            waited = True
        yield waited


@contextmanager
def _told_plainly(folder: Path, source: RowSource) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            needed = len(source.images) * math.prod(source.image_shape) / 1e9
            raise UserError(
                f"the disk of {folder.parent} is full: the cache needs {needed:.2f} GB. "
                "What was prepared so far is kept. Free some space, or name a folder on another "
                "disk with data.cache_dir=DIR."
            ) from None
        if error.errno in NOT_WRITABLE:
            raise UserError(
                f"the cache folder {folder.parent} cannot be written ({error.strerror}). "
                "Name another one with data.cache_dir=DIR."
            ) from None
        raise
