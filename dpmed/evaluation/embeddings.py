"""Embedding files: one float16 array [images, features], rows as in the split's predictions.

Written batch by batch, so that a split of any size passes through; the file appears under its
name only when every row is in it. Read in blocks of rows without mapping the file, so that memory
stays what the caller asks for. Shapes: N images, D features, B rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from dpmed.errors import UserError


class EmbeddingWriter:
    """Writes a float16 `.npy` file row by row; use it as a context manager.

    Args:
        path: the file to make, usually `embeddings/<encoder>_<split>.npy`.
        num_images: N, known from the predictions.
        num_features: D.
    """

    def __init__(self, path: Path, *, num_images: int, num_features: int) -> None:
        self._path = Path(path)
        self._shape = (num_images, num_features)
        self._num_written = 0

    def __enter__(self) -> EmbeddingWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self._path.with_name(f".{self._path.name}.part")
        self._file = self._temporary.open("wb")
        header = {"descr": "<f2", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self

    def append(self, features_BD: np.ndarray) -> None:
        """Adds rows.

        Raises:
            UserError: a value is not finite in float16, whose largest number is 65,504.
        """
        assert features_BD.shape[1] == self._shape[1], "embeddings changed their width"
        with np.errstate(over="ignore"):
            half_BD = features_BD.astype("<f2")
        _require_finite(half_BD, self._num_written, self._path)
        self._file.write(np.ascontiguousarray(half_BD).tobytes())
        self._num_written += len(half_BD)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if kind is not None:
            self._temporary.unlink(missing_ok=True)
            return
        assert self._num_written == self._shape[0], "fewer embeddings than images"
        self._temporary.replace(self._path)


def embedding_shape(path: Path) -> tuple[int, int]:
    """Number of images and of features.

    Raises:
        UserError: the file is missing, truncated, or no two-dimensional array.
    """
    return _read_header(path)[0]


def read_blocks(path: Path, num_rows: int) -> Iterator[np.ndarray]:
    """Consecutive blocks of at most `num_rows` rows, in the type of the file.

    Raises:
        UserError: as `embedding_shape`, or a value is not finite.
    """
    (num_images, num_features), dtype, offset = _read_header(path)
    with Path(path).open("rb") as file:
        file.seek(offset)
        for start in range(0, num_images, num_rows):
            size = min(num_rows, num_images - start)
            block_BD = np.fromfile(file, dtype, size * num_features).reshape(size, num_features)
            _require_finite(block_BD, start, path)
            yield block_BD


def _read_header(path: Path) -> tuple[tuple[int, int], np.dtype, int]:
    try:
        with Path(path).open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            shape, fortran_order, dtype = read(file)
            offset = file.tell()
    except FileNotFoundError as error:
        raise UserError(f"There are no embeddings at {path}. Evaluate this run again.") from error
    except ValueError as error:
        raise UserError(f"{path} is no array file ({error}). Evaluate this run again.") from error
    if len(shape) != 2 or fortran_order:
        raise UserError(f"{path} has shape {shape}; embeddings are rows of images.")
    expected = offset + int(np.prod(shape)) * dtype.itemsize
    if Path(path).stat().st_size != expected:
        raise UserError(
            f"{path} has {Path(path).stat().st_size} bytes where its header says {expected}. It is "
            "probably truncated: delete it and evaluate this run again."
        )
    return (shape[0], shape[1]), dtype, offset


def _require_finite(block_BD: np.ndarray, start: int, path: Path) -> None:
    # One sum finds out; only a table that has such a value pays for the search.
    if np.isfinite(block_BD.sum(dtype=np.float32)):
        return
    wrong_B = ~np.isfinite(block_BD).all(axis=1)
    if wrong_B.any():
        raise UserError(
            f"{path}: {int(wrong_B.sum())} rows from {start + int(np.argmax(wrong_B))} on are not "
            "finite. float16 ends at 65,504: scale the features down or find the broken images."
        )
