"""A hand-made encoder: histograms of gradient directions over a grid, as one unit vector an image.

The second of the two encoders whose neighbours become candidates; it has no weights and has seen
no data. Robust to scale, JPEG and grey levels; to rotation by asking with turned copies.

Source: Dalal and Triggs 2005, Histograms of oriented gradients for human detection.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from dpmed.data.overlap.contrast import SIZE, shrink

_PIXELS, _CELLS, _BINS = 64, 8, 8


def gradient_descriptor(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Unit vector of _CELLS x _CELLS x _BINS numbers of one canonical image."""
    rows, columns = np.gradient(np.log1p(shrink(image, size=_PIXELS)))
    strength = np.hypot(rows, columns)
    turn = (np.arctan2(rows, columns) % np.pi) * (_BINS / np.pi)
    lower = np.floor(turn).astype(int)
    share = turn - lower
    cell = np.arange(_PIXELS) * _CELLS // _PIXELS
    place = (cell[:, None] * _CELLS + cell[None, :]) * _BINS
    histogram = np.bincount(
        (place + lower % _BINS).ravel(), (strength * (1 - share)).ravel(), _CELLS**2 * _BINS
    )
    histogram += np.bincount(
        (place + (lower + 1) % _BINS).ravel(), (strength * share).ravel(), _CELLS**2 * _BINS
    )
    # Each cell counts alike, so that a bright marker or a black corner cannot decide.
    cells = histogram.reshape(-1, _BINS)
    cells = cells / (np.linalg.norm(cells, axis=1, keepdims=True) + 0.05 * cells.max() + 1e-9)
    vector = np.clip(cells, 0, 1).ravel()
    vector -= vector.mean()
    return (vector / (np.linalg.norm(vector) + 1e-9)).astype(np.float32)


def turned(image: NDArray[np.uint8], degrees: float, zoom: float) -> NDArray[np.uint8]:
    """The canonical image rotated and enlarged about its centre; edge pixels are repeated."""
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    centre = np.full(2, (SIZE - 1) / 2)
    return affine_transform(image, matrix, offset=centre - matrix @ centre, order=1, mode="nearest")
