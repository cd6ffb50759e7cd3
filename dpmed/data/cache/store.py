"""Images of a study table as one memory-mapped uint8 array, decoded once and checked when opened.

A cache lies in `<key of the preprocessing>/<key of every image's path and size>`, so that another
setting never meets an old array. It holds `images.npy` and `index.parquet`, appears under its name
only when complete, and is never changed afterwards. Reading it keeps nothing in memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dpmed.data.cache.build import build_cache
from dpmed.data.cache.index import INDEX_NAME, CacheIndex, open_cache, read_index
from dpmed.data.cache.rows import FileRows, GeneratedRows, RowSource, file_stamps
from dpmed.data.decoding import DECODING_VERSION
from dpmed.data.pixel_hash import pixel_hash
from dpmed.data.preprocessing import Preprocessing
from dpmed.errors import UserError

LOGGER = logging.getLogger(__name__)
MAX_NAMED = 5
ABSENT = -1


@dataclass(frozen=True, kw_only=True)
class SkippedImage:
    """An image that could not be read; `reason` is a clause."""

    image: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ImageStore:
    """The images of a table.

    Args:
        array: uint8 (num_kept, height, width), for volumes (num_kept, depth, height, width);
            read-only and memory-mapped where cached.
        kept_rows: int64 (num_kept,), the table's row of each image: `table.iloc[kept_rows]` has
            row i for `array[i]`.
        skipped: each image that was left out.
        suspected_inverted: bool (num_kept,), see `looks_inverted`.
        folder: the cache folder, None where the array is held in memory.
    """

    array: np.ndarray
    kept_rows: np.ndarray
    skipped: list[SkippedImage]
    suspected_inverted: np.ndarray
    folder: Path | None

    def pixel_hashes(self) -> list[str]:
        """Hash of each kept image as it was decoded, for `find_duplicate_images`."""
        if self.folder is None:
            return [pixel_hash(image) for image in self.array]
        rows = read_index(self.folder / INDEX_NAME)
        return rows["pixel_hash"][rows["reason"].isna()].tolist()


def prepare_images(
    table: pd.DataFrame,
    root: Path,
    preprocessing: Preprocessing,
    *,
    cache_dir: Path,
    num_workers: int | None = None,
    max_skipped: int = 0,
    skipped_before: Sequence[SkippedImage] = (),
    progress: bool = True,
) -> ImageStore:
    """The images of a table from the cache, decoding those that are not in it.

    Args:
        table: a study table; `image` is relative to `root`.
        root: the folder of the images.
        preprocessing: what is done to each image.
        cache_dir: where caches lie; a killed run's work is taken up again.
        num_workers: processes; 0 means this one, None all cores where there is enough to do.
        max_skipped: how many images may be left out.
        skipped_before: those that are not in the table because the reader did not find them;
            they count.
        progress: show a progress bar.

    Guarantee:
        Row i of the array depends on the file of row `kept_rows[i]` and on the preprocessing only.

    Raises:
        UserError: too many unreadable images, or a cache folder that cannot be written.
    """
    images = table["image"].tolist()
    store = prepare_rows(
        FileRows(root=Path(root), images=images, preprocessing=preprocessing),
        file_stamps(Path(root), images),
        about={"decoding": DECODING_VERSION, "preprocessing": preprocessing.describe()},
        cache_dir=cache_dir,
        num_workers=num_workers,
        max_skipped=max_skipped,
        skipped_before=skipped_before,
        progress=progress,
    )
    if store.suspected_inverted.any():
        LOGGER.warning(
            "%d images look inverted (bright corners, dark centre). If their photometric tag is "
            "wrong, set data.preprocessing.photometric; otherwise nothing needs doing.",
            int(store.suspected_inverted.sum()),
        )
    return store


def prepare_rows(
    source: RowSource,
    stamps: np.ndarray,
    *,
    about: Mapping[str, Any],
    cache_dir: Path,
    num_workers: int | None,
    max_skipped: int,
    skipped_before: Sequence[SkippedImage] = (),
    progress: bool = True,
) -> ImageStore:
    """The rows of any source that reads files, as `prepare_images`.

    Args:
        source: makes the rows.
        stamps: int64 (num_rows, 2), size and modification time of each file now, -1 where absent.
        about: everything but the files that the pixels depend on.
        cache_dir: where caches lie.
        num_workers: as for `prepare_images`, and so are the others.
        max_skipped: how many rows may be left out.
        skipped_before: what the reader left out; it counts.
        progress: show a progress bar.
    """
    images = list(source.images)
    absent = np.flatnonzero(stamps[:, 0] == ABSENT)
    missing = [
        SkippedImage(image=images[row], reason="No such file or directory") for row in absent
    ]
    _check_skipped([*skipped_before, *missing], max_skipped)
    rows = [f"{image}\0{size}" for image, size in zip(images, stamps[:, 0], strict=True)]
    folder = Path(cache_dir) / _key(json.dumps(about, sort_keys=True)) / _key(*rows)
    index = open_cache(folder, source, stamps) or build_cache(
        folder, source, stamps, about=about, num_workers=num_workers, progress=progress
    )
    return _store(folder, index, images, max_skipped, skipped_before)


def prepare_generated(
    table: pd.DataFrame,
    *,
    render: Callable[[pd.DataFrame], np.ndarray],
    content_key: str,
    preprocessing: Preprocessing,
    cache_dir: Path | None,
    progress: bool = True,
) -> ImageStore:
    """Generated images of a table, from the cache or in memory.

    Args:
        table: a study table whose `image` is a key.
        render: n rows of the table -> uint8 (n, height, width). It is called in this process.
        content_key: text that changes whenever an image would (generator's version and settings).
        preprocessing: what is done to each image, as if it came from a file.
        cache_dir: where caches lie, or None to render into memory.
        progress: show a progress bar.
    """
    images = table["image"].tolist()
    source = GeneratedRows(table=table, render=render, preprocessing=preprocessing)
    if cache_dir is None:
        return _in_memory(source)
    stamps = np.zeros((len(images), 2), dtype=np.int64)
    about = {"generated": content_key, "preprocessing": preprocessing.describe()}
    folder = Path(cache_dir) / _key(json.dumps(about, sort_keys=True)) / _key(*images)
    index = open_cache(folder, source, stamps) or build_cache(
        folder,
        source,
        stamps,
        about=about,
        num_workers=0,
        progress=progress,
    )
    return _store(folder, index, images, max_skipped=0)


def _store(
    folder: Path,
    index: CacheIndex,
    images: list[str],
    max_skipped: int,
    skipped_before: Sequence[SkippedImage] = (),
) -> ImageStore:
    unreadable = [
        SkippedImage(image=images[row], reason=reason)
        for row, reason in enumerate(index.rows["reason"].tolist())
        if isinstance(reason, str)
    ]
    skipped = [*skipped_before, *unreadable]
    _check_skipped(skipped, max_skipped)
    kept = index.rows["reason"].isna().to_numpy()
    return ImageStore(
        array=index.array,
        kept_rows=np.flatnonzero(kept),
        skipped=skipped,
        suspected_inverted=index.rows["inverted"][kept].to_numpy(dtype=bool),
        folder=folder,
    )


def _in_memory(source: GeneratedRows) -> ImageStore:
    array, _ = source.make(range(len(source.images)))
    return ImageStore(
        array=array,
        kept_rows=np.arange(len(array)),
        skipped=[],
        suspected_inverted=np.zeros(len(array), dtype=bool),
        folder=None,
    )


def _check_skipped(skipped: list[SkippedImage], max_skipped: int) -> None:
    if len(skipped) <= max_skipped:
        return
    lines = [f"  {entry.image}: {entry.reason}" for entry in skipped[:MAX_NAMED]]
    more = [f"  and {len(skipped) - MAX_NAMED} more"] if len(skipped) > MAX_NAMED else []
    raise UserError(
        "\n".join(
            [
                f"{len(skipped)} image{'s' if len(skipped) > 1 else ''} cannot be read, and "
                f"data.max_skipped_images={max_skipped}:",
                *lines,
                *more,
                "Mend or remove them, or allow this number to be left out with "
                f"data.max_skipped_images={len(skipped)}.",
            ]
        )
    )


def _key(*lines: str) -> str:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=10).hexdigest()
