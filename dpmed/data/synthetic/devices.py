"""Drawing what lies on or in a patient who is ill: tubes, cables and pacemakers.

They are commoner in AP views, so they hint at sickness without being one of the labels, and their
thin lines can be taken for plate-like atelectasis.
"""

from __future__ import annotations

import numpy as np

from dpmed.data.synthetic.anatomy import Chest, dome, soft_step
from dpmed.data.synthetic.body import Body

_FIRST_NUMBER = 46  # the columns of `Body.detail` before it place the findings


def draw_devices(body: Body, chest: Chest) -> np.ndarray:
    """Attenuation of all devices of a block, shape (B, H, W)."""
    devices = np.zeros_like(chest.lung)
    for line in range(3):
        rows = np.flatnonzero(body.num_lines[:, 0, 0] > line)
        if rows.size:
            devices[rows] += _line(body.select(rows), chest.select(rows), line)
    rows = np.flatnonzero(body.pacemaker[:, 0, 0] > 0)
    if rows.size:
        devices[rows] += _pacemaker(chest.select(rows))
    return devices


def _line(body: Body, chest: Chest, line: int) -> np.ndarray:
    """A cable that hangs from the neck or shoulder and bends over the chest."""
    first = _FIRST_NUMBER + 5 * line
    start, lean, bend, wave, end = (body.detail[:, first + i, None, None] for i in range(5))
    y = chest.y
    path = 0.9 * (start - 0.5) + (lean - 0.5) * (y + 0.8)
    path = path + 0.22 * bend * np.sin((1.5 + 3.0 * wave) * y + 6.0 * lean)
    width = np.maximum(0.010, 0.45 * chest.pixel)
    across = (chest.x - path) / width
    stop = soft_step(0.9 * end - 0.1 - y, 0.03)
    electrode = (chest.x - path) ** 2 + (y - 0.9 * end + 0.1) ** 2
    pad = 0.16 * dome(1.0 - electrode * (1 / 0.032**2))
    strength = 0.16 * np.minimum(0.022 / width, 1.0)
    return strength * np.exp(-across * across) * stop + pad * (wave > 0.5)


def _pacemaker(chest: Chest) -> np.ndarray:
    """A box below the left clavicle with a lead to the heart."""
    dx, dy = (chest.x - 0.46) / 0.085, (chest.y + 0.40) / 0.07
    box = dome(3.0 * (1.0 - dx**4 - dy**4))
    path = 0.40 - 0.55 * np.square(chest.y - 0.25) - 0.30 * soft_step(-0.1 - chest.y, 0.5)
    width = np.maximum(0.009, 0.45 * chest.pixel)
    across = (chest.x - path) / width
    lead = np.exp(-across * across) * (np.abs(chest.y + 0.05) < 0.30)
    return 0.45 * box + 0.14 * np.minimum(0.02 / width, 1.0) * lead
