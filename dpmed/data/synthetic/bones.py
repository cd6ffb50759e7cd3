"""Drawing the bones over a chest: ribs, spine, clavicles, shoulder blades and upper arms.

Ribs are periodic in a bent vertical coordinate, one formula for all of them. Every function returns
attenuation of shape (B, H, W) on top of the soft tissue.
"""

from __future__ import annotations

import numpy as np

from dpmed.data.synthetic.anatomy import Chest, soft_step
from dpmed.data.synthetic.body import Body


def draw_bones(body: Body, chest: Chest) -> np.ndarray:
    """Attenuation of all bones of a block, shape (B, H, W)."""
    return body.bone * (
        _ribs(body, chest) + _spine(body, chest) + _clavicles(body, chest) + _shoulders(body, chest)
    )


def _ribs(body: Body, chest: Chest) -> np.ndarray:
    """Posterior ribs arch down to the side; fainter anterior ribs come back down to the middle."""
    relative = chest.lateral / body.thorax_width
    y = chest.y + 0.016 * np.sin(7.0 * chest.y + 6.0 * body.rib_phase)
    arch = body.rib_slope * np.square(relative - 0.28) * (2.3 - 1.0 * chest.y)
    posterior = _band((y - arch) / body.rib_spacing + body.rib_phase, 0.46)
    descent = 0.62 * (1.0 - relative) + 1.2 * body.rib_slope
    anterior = _band((y - descent) / body.rib_spacing + body.rib_phase, 0.52)
    anterior = anterior * soft_step(relative - 0.55, 0.35)
    cage = soft_step(chest.wall + 0.03, 0.025) * soft_step(chest.lateral - 0.06, 0.05)
    seen = 0.3 + 0.7 * soft_step(chest.middle, 0.06)
    seen = seen * (1.0 - 0.85 * soft_step(chest.y - chest.diaphragm, 0.1))
    return cage * seen * (0.078 * posterior + 0.038 * anterior)


def _band(phase: np.ndarray, width: float) -> np.ndarray:
    """A band for every whole phase, brighter at its cortical edges."""
    t = np.abs(phase - np.round(phase)) * (2.0 / width)
    square = t * t
    return np.sqrt(np.maximum(1.0 - square * square, 0.0)) * (0.72 + 0.5 * square)


def _spine(body: Body, chest: Chest) -> np.ndarray:
    column = soft_step(0.062 - np.abs(chest.x), 0.03)
    phase = chest.y / (0.88 * body.rib_spacing) + body.rib_phase
    disc = 1.0 - 0.5 * np.exp(-np.square((phase - np.round(phase)) * 7.0))
    return 0.075 * column * disc


def _clavicles(body: Body, chest: Chest) -> np.ndarray:
    lateral = chest.lateral
    centre = body.clavicle - 0.17 * lateral - 0.045 * np.sin(6.0 * lateral - 0.7)
    centre = centre + body.clavicle_tilt * chest.x
    t = (chest.y - centre) * (1 / 0.032)
    square = np.minimum(t * t, 1.0)
    ends = soft_step(lateral - 0.10, 0.05) * soft_step(0.84 - lateral, 0.1)
    return 0.15 * ends * np.sqrt(1.0 - square) * (0.7 + 0.6 * square)


def _shoulders(body: Body, chest: Chest) -> np.ndarray:
    """Shoulder blade (its medial border lies over the lung in AP views) and humerus."""
    border = body.scapula + 0.22 * np.square(chest.y + 0.25)
    height = soft_step(chest.y + 0.68, 0.15) * soft_step(0.06 - chest.y, 0.3)
    inside = chest.lateral - border
    blade = height * soft_step(inside, 0.02) * soft_step(0.86 - chest.lateral, 0.2)
    blade = blade * (0.45 + 0.55 * np.exp(-np.square((inside - 0.02) * 40.0)))
    joint_x = 0.94 + 0.04 * body.fat
    dx, dy = chest.lateral - joint_x, chest.y + 0.53
    head = np.sqrt(np.maximum(1.0 - (dx * dx + dy * dy) * (1 / 0.115**2), 0.0))
    shaft_x = np.abs(dx - body.arms * (dy + 0.08)) * (1 / 0.05)
    shaft = soft_step(1.0 - shaft_x, 0.4) * (0.5 + 0.5 * shaft_x) * (dy > 0.02)
    return 0.07 * blade + 0.20 * np.maximum(head, shaft)
