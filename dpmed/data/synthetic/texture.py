"""Irregular patterns: vessels that leave the hila, and a patchy field for opacities.

The patterns are interpolated from a patient's own lattice of random numbers at places
given in the body frame, so they look the same at every picture size.
"""

from __future__ import annotations

import numpy as np

from dpmed.data.synthetic.anatomy import Chest
from dpmed.data.synthetic.body import Body


def vessel_pattern(body: Body, chest: Chest) -> np.ndarray:
    """Share of lung that hila and vessels replace, shape (B, H, W).

    A bent fan of lines leaves each hilum; a random field bends them and decides how many are seen.
    """
    left = chest.left.astype(np.float32)
    dx = chest.lateral - 0.10
    dy = chest.y + (0.09 + 0.04 * left)
    radius = np.sqrt(dx * dx + dy * dy)
    angle = np.arctan2(dy, dx)
    place = 5.0 * angle + (48.0 - 32.0 * left)
    bend = interpolate(body.texture, 6.0 * np.sqrt(radius) + 0.5, place)
    distance = np.sin(9.0 * angle + 1.3 * bend) * radius * (1 / 0.075)
    filament = np.exp(-distance * distance) * np.clip(1.05 - 1.5 * radius, 0.0, 1.0)
    filament = filament * np.clip(0.6 + 0.5 * bend, 0.0, 1.2)
    hilum = np.exp(-(dx * dx * 120.0 + dy * dy * 45.0))
    return body.vessels * (0.22 * filament + 0.34 * hilum)


def patchy_pattern(body: Body, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth random field around 0 with patches of about a tenth of the chest."""
    return interpolate(body.texture, 8.0 * y + 20.0, 8.0 * x + 60.0)


def interpolate(lattice: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Bilinear values of a periodic lattice at positive positions.

    Args:
        lattice: shape (B, R, C); R and C are powers of two.
        row: real-valued row positions, positive, shape (B, H, W).
        column: real-valued column positions, positive, shape (B, H, W).
    """
    num_rows, num_columns = lattice.shape[1:]
    flat = lattice.reshape(-1)
    offset = (np.arange(len(lattice), dtype=np.int32) * (num_rows * num_columns))[:, None, None]
    above, before = np.floor(row), np.floor(column)
    down, right = row - above, column - before
    top, start = above.astype(np.int32), before.astype(np.int32)
    row_0 = (top & (num_rows - 1)) * num_columns + offset
    row_1 = ((top + 1) & (num_rows - 1)) * num_columns + offset
    column_0, column_1 = start & (num_columns - 1), (start + 1) & (num_columns - 1)
    corner = flat[row_0 + column_0]
    upper = corner + (flat[row_0 + column_1] - corner) * right
    corner = flat[row_1 + column_0]
    lower = corner + (flat[row_1 + column_1] - corner) * right
    return upper + (lower - upper) * down
