"""Reading a memory-mapped array without keeping its pages, so that memory does not grow with it.

A process is charged for every page of a map that it has touched, until the system takes them back.
Letting them go after each read costs a few microseconds, since the content stays in the system's
own page cache, and resident memory is then the same for a thousand and for a million images.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def read_rows(images_NHW: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A copy of some images, in the order of `rows`.

    Args:
        images_NHW: memory-mapped or not.
        rows: which images.
    """
    copy = np.asarray(images_NHW)[rows]
    _let_go(images_NHW)
    return copy


def blocks(
    images_NHW: NDArray[np.uint8], *, num_bytes: int = 1 << 24
) -> Iterator[NDArray[np.uint8]]:
    """All images in order, in contiguous blocks of about `num_bytes`; use each before the next."""
    size = max(1, num_bytes // max(1, images_NHW[:1].nbytes))
    for start in range(0, len(images_NHW), size):
        yield np.ascontiguousarray(images_NHW[start : start + size])
        _let_go(images_NHW)


def _let_go(images_NHW: NDArray[np.uint8]) -> None:
    """Only the process forgets the pages; they stay in the system's cache of files."""
    pages = getattr(images_NHW, "_mmap", None)
    if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        assert not images_NHW.flags.writeable, "letting go of a changed page would lose the change"
        pages.madvise(mmap.MADV_DONTNEED)
