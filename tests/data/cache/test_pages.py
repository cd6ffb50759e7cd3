"""Reading a memory map row by row: the right images, and memory that does not grow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dpmed.data.cache.pages import blocks, read_rows

READ_EVERYTHING = """
import resource, sys
import numpy as np
from dpmed.data.cache.pages import blocks, read_rows

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

array = np.load(sys.argv[1], mmap_mode="r")
read_rows(array, np.arange(64))
before, peak = resident(), 0
order = np.random.default_rng(0).permutation(len(array))
for rows in np.array_split(order, len(array) // 64):
    read_rows(array, rows)
    peak = max(peak, resident())
for block in blocks(array, num_bytes=1 << 20):
    peak = max(peak, resident())
print(peak - before)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (8192, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    return tmp_path / "images.npy"


def test_rows_and_blocks_are_the_images(path: Path) -> None:
    images, mapped = np.load(path), np.load(path, mmap_mode="r")
    rows = np.array([5, 8000, 5, 0])
    for array in (images, mapped):
        np.testing.assert_array_equal(read_rows(array, rows), images[rows])
        parts = list(blocks(array, num_bytes=1 << 20))
        assert len(parts) == 32
        np.testing.assert_array_equal(np.concatenate(parts), images)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_resident_memory_does_not_grow_with_what_was_read(path: Path) -> None:
    """32 MB are read twice through the map; less than half of them are ever resident."""
    command = [sys.executable, "-c", READ_EVERYTHING, str(path)]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 16e6
