"""Irregular patterns of the lung: vessels that leave the hila, and a patchy field for opacities.

The patterns are interpolated from a patient's own lattice of random numbers at places given in the
body frame, so they look the same at every picture size.
"""

from __future__ import annotations

import numpy as np

from dpmed.data.synthetic.anatomy import Chest
from dpmed.data.synthetic.body import Body


def vessel_pattern(body: Body, chest: Chest) -> np.ndarray:
    """Brightness of hila and vessels, shape (B, H, W): filaments that radiate from each hilum."""
    dx = chest.lateral - 0.13
    dy = chest.y + 0.09
    radius = np.hypot(dx, dy)
    angle = np.arctan2(dy, dx) * (3.2 / np.pi)
    angle = np.where(chest.left, angle + 4.0, angle + 12.0)
    ring = 4.0 * np.log(radius + 0.06) + 11.5
    wave = interpolate(body.texture[:, 0], ring, 1.5 * angle)
    filament = np.exp(-np.square(wave / 0.22))
    fade = np.exp(-radius / 0.28)
    hilum = np.exp(-np.square(radius / 0.085))
    return body.vessels * (0.22 * filament * fade + 0.35 * hilum)


def patchy_pattern(body: Body, chest: Chest) -> np.ndarray:
    """A smooth random field around 0 with patches of about a tenth of the chest."""
    return interpolate(body.texture[:, 1], 9.0 * chest.y + 9.0, 9.0 * chest.x + 12.0)


def interpolate(lattice: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Bilinear values of a periodic lattice.

    Args:
        lattice: shape (B, R, C).
        row: real-valued row positions, shape (B, H, W).
        column: real-valued column positions, shape (B, H, W).
    """
    num_rows, num_columns = lattice.shape[1:]
    top, start = np.floor(row), np.floor(column)
    down, right = row - top, column - start
    flat = lattice.reshape(-1)
    offset = (np.arange(len(lattice)) * (num_rows * num_columns))[:, None, None]
    row_0 = top.astype(np.int32) % num_rows * num_columns + offset
    row_1 = (top.astype(np.int32) + 1) % num_rows * num_columns + offset
    column_0 = start.astype(np.int32) % num_columns
    column_1 = (start.astype(np.int32) + 1) % num_columns
    upper = flat[row_0 + column_0] * (1 - right) + flat[row_0 + column_1] * right
    lower = flat[row_1 + column_0] * (1 - right) + flat[row_1 + column_1] * right
    return upper * (1 - down) + lower * down
