"""Where the rows of a cache come from: image files to decode, or images to generate.

A source turns row numbers into pixels and one record a row. File rows are made in worker processes,
whose start takes as long as the imports of this module.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dpmed.data.decoding import UnreadableImageError, read_pixels
from dpmed.data.pixel_hash import pixel_hash
from dpmed.data.preprocessing import Preprocessing, looks_inverted, preprocess

if TYPE_CHECKING:
    import pandas as pd

HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class RowRecord:
    """What the index keeps of one row; `reason` says why it could not be read, else None."""

    row: int
    size: int = 0
    mtime_ns: int = 0
    content_hash: str = ""
    pixel_hash: str = ""
    stored_hash: str = ""
    inverted: bool = False
    reason: str | None = None


class RowSource(Protocol):
    """Makes rows of a cache."""

    @property
    def images(self) -> Sequence[str]:
        """Name of each row."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of each row: (height, width) of an image, (depth, height, width) of a volume."""

    @property
    def chunk_rows(self) -> int:
        """How many rows to make at a time."""

    def make(self, rows: Sequence[int]) -> tuple[np.ndarray, list[RowRecord]]:
        """uint8 (len(rows), *image_shape), zeros where unreadable, and the records."""

    def content_hash(self, row: int) -> str:
        """Hash of what the row is made from."""


@dataclass(frozen=True, kw_only=True)
class FileRows:
    """Rows decoded from image files."""

    root: Path
    images: Sequence[str]
    preprocessing: Preprocessing
    chunk_rows: int = 16

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width), in pixels."""
        return self.preprocessing.image_size, self.preprocessing.image_size

    def make(self, rows: Sequence[int]) -> tuple[np.ndarray, list[RowRecord]]:
        """Decoded images; a file that cannot be read gives a reason instead of an error."""
        array = np.zeros((len(rows), *self.image_shape), dtype=np.uint8)
        records = [self._fill(array[place], row) for place, row in enumerate(rows)]
        return array, records

    def content_hash(self, row: int) -> str:
        """Hash of the file's bytes."""
        digest = hashlib.blake2b(digest_size=16)
        with (self.root / self.images[row]).open("rb") as file:
            while block := file.read(HASH_BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest()

    def _fill(self, target: np.ndarray, row: int) -> RowRecord:
        path = self.root / self.images[row]
        size, mtime_ns = file_stamp(path)
        try:
            pixels = read_pixels(path, self.preprocessing)
            content_hash = self.content_hash(row)
        except UnreadableImageError as error:
            return RowRecord(row=row, size=size, mtime_ns=mtime_ns, reason=error.reason)
        except OSError as error:
            return RowRecord(row=row, size=size, mtime_ns=mtime_ns, reason=str(error.strerror))
        target[:] = preprocess(pixels, self.preprocessing)
        return RowRecord(
            row=row,
            size=size,
            mtime_ns=mtime_ns,
            content_hash=content_hash,
            pixel_hash=pixel_hash(pixels),
            stored_hash=stored_hash(target),
            inverted=looks_inverted(target),
        )


@dataclass(frozen=True, kw_only=True)
class GeneratedRows:
    """Rows rendered from the table by a function."""

    table: pd.DataFrame
    render: Callable[[pd.DataFrame], np.ndarray]
    preprocessing: Preprocessing
    chunk_rows: int = 1024

    @property
    def images(self) -> Sequence[str]:
        """Key of each row."""
        return self.table["image"].tolist()

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width), in pixels."""
        return self.preprocessing.image_size, self.preprocessing.image_size

    def make(self, rows: Sequence[int]) -> tuple[np.ndarray, list[RowRecord]]:
        """Rendered and preprocessed images."""
        rendered = self.render(self.table.iloc[list(rows)])
        assert rendered.dtype == np.uint8
        assert len(rendered) == len(rows)
        array = np.stack([preprocess(image, self.preprocessing) for image in rendered])
        records = [
            RowRecord(row=row, pixel_hash=pixel_hash(image), stored_hash=stored_hash(stored))
            for row, image, stored in zip(rows, rendered, array, strict=True)
        ]
        return array, records

    def content_hash(self, row: int) -> str:
        """Empty: the key of the cache stands for the content."""
        return ""


def stored_hash(image: np.ndarray) -> str:
    """Hash of an image as it lies in the array, to find damage."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).hexdigest()


def file_stamps(root: Path, images: Sequence[str]) -> np.ndarray:
    """int64 (num_images, 2): size in bytes and modification time in ns, -1 where absent."""
    return np.array([file_stamp(root / image) for image in images], dtype=np.int64).reshape(-1, 2)


def file_stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in ns, -1 where the file is absent."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
