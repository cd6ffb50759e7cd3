"""Volumes as rows of the array cache: read from a source, preprocessed, with one record each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpmed.data.cache.rows import RowRecord, stored_hash
from dpmed.data.cache.store import ImageStore, SkippedImage, prepare_rows
from dpmed.data.decoding import UnreadableImageError
from dpmed.data.pixel_hash import pixel_hash
from dpmed.data.volumes.files import VolumeSource
from dpmed.data.volumes.preprocessing import (
    PREPROCESSING_VERSION,
    VolumePreprocessing,
    preprocess_volume,
)


def prepare_volumes(
    names: Sequence[str],
    source: VolumeSource,
    preprocessing: VolumePreprocessing,
    *,
    cache_dir: Path,
    num_workers: int | None = None,
    max_skipped: int = 0,
    skipped_before: Sequence[SkippedImage] = (),
    progress: bool = True,
) -> ImageStore:
    """The volumes of a table from the cache, reading those that are not in it.

    Args:
        names: of the volumes, in the order of the table's rows.
        source: reads them.
        preprocessing: what is done to each.
        cache_dir: where caches lie; as for images, and so are the others.
        num_workers: processes.
        max_skipped: how many volumes may be left out.
        skipped_before: what the reader left out; it counts.
        progress: show a progress bar.

    Raises:
        UserError: too many unreadable volumes, or a cache folder that cannot be written.
    """
    stamps = np.array([source.stamp(name) for name in names], dtype=np.int64).reshape(-1, 2)
    return prepare_rows(
        VolumeRows(images=list(names), source=source, preprocessing=preprocessing),
        stamps,
        about={"volumes": PREPROCESSING_VERSION, "preprocessing": preprocessing.describe()},
        cache_dir=cache_dir,
        num_workers=num_workers,
        max_skipped=max_skipped,
        skipped_before=skipped_before,
        progress=progress,
    )


@dataclass(frozen=True, kw_only=True)
class VolumeRows:
    """Rows read from a source of volumes."""

    images: Sequence[str]
    source: VolumeSource
    preprocessing: VolumePreprocessing
    chunk_rows: int = 16

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(depth, height, width), in voxels."""
        size = self.preprocessing.image_size
        return size, size, size

    def make(self, rows: Sequence[int]) -> tuple[np.ndarray, list[RowRecord]]:
        """Volumes; one that cannot be read gives a reason instead of an error."""
        array = np.zeros((len(rows), *self.image_shape), dtype=np.uint8)
        records = [self._fill(array[place], row) for place, row in enumerate(rows)]
        return array, records

    def content_hash(self, row: int) -> str:
        """Hash of what the volume is read from."""
        return self.source.content_hash(self.images[row])

    def _fill(self, target: np.ndarray, row: int) -> RowRecord:
        name = self.images[row]
        size, mtime_ns = self.source.stamp(name)
        try:
            raw = self.source.read(name)
            target[:] = preprocess_volume(raw, self.preprocessing)
            content_hash = self.content_hash(row)
        except UnreadableImageError as error:
            return RowRecord(row=row, size=size, mtime_ns=mtime_ns, reason=error.reason)
        except ValueError as error:
            return RowRecord(row=row, size=size, mtime_ns=mtime_ns, reason=str(error))
        except OSError as error:
            return RowRecord(row=row, size=size, mtime_ns=mtime_ns, reason=str(error.strerror))
        return RowRecord(
            row=row,
            size=size,
            mtime_ns=mtime_ns,
            content_hash=content_hash,
            pixel_hash=pixel_hash(raw.voxels_XYZ),
            stored_hash=stored_hash(target),
        )
