"""Drawing disease: where the lung of a chest is replaced by fluid, collapse or consolidation.

Each function returns the opacity of one finding, 0 (air as before) to 1 (no air left), for the rows
that show it. Cardiomegaly needs no drawing of its own: it is the size of the heart in `body`.
Severities below `body.VISIBLE` are drawn too: they are the doubtful cases among the negatives.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dpmed.data.synthetic.anatomy import Chest, by_side, soft_step
from dpmed.data.synthetic.body import Body
from dpmed.data.synthetic.cohort import FINDINGS
from dpmed.data.synthetic.texture import patchy_pattern


def apply_findings(body: Body, chest: Chest) -> tuple[np.ndarray, np.ndarray]:
    """The lung that is left and the attenuation that fluid adds, each of shape (B, H, W).

    Args:
        body: B bodies with their severities.
        chest: the healthy chests.
    """
    lung, fluid = chest.lung.copy(), np.zeros_like(chest.lung)
    for name, draw in _OPACITIES.items():
        severity = body.severity[:, FINDINGS.index(name)]
        rows = np.flatnonzero(severity > 0)
        if rows.size:
            opacity = draw(_Scene(body, chest, rows, severity[rows]))
            lung[rows] *= 1.0 - opacity
            if name == "pleural_effusion":
                fluid[rows] = 0.12 * opacity * soft_step(chest.wall[rows] + 0.02, 0.03)
    return lung, fluid


class _Scene:
    """The rows of a block that show one finding."""

    def __init__(self, body: Body, chest: Chest, rows: np.ndarray, severity: np.ndarray) -> None:
        self.body, self.chest = body.select(rows), chest.select(rows)
        self.severity = severity[:, None, None]

    def uniform(self, column: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Column `column` of the body's placing numbers, scaled, shape (rows, 1, 1)."""
        return low + (high - low) * self.body.detail[:, column, None, None]

    def side(self, column: int) -> np.ndarray:
        """True on the patient's left with probability one half."""
        return self.uniform(column) < 0.5


def _effusion(scene: _Scene) -> np.ndarray:
    """A meniscus that fills the costophrenic angle; in some AP views fluid layers into a veil."""
    body = scene.body
    affected = (scene.chest.left == scene.side(0)) | (scene.uniform(1) < 0.3)
    relative = scene.chest.lateral / body.thorax_width
    angle = by_side(body.dome, scene.chest.left) + 0.27 * body.dome_curve
    height = 0.07 + 0.50 * scene.severity**1.3
    surface = angle - height * (0.25 + 0.75 * relative**2.2)
    fluid = 0.93 * soft_step(scene.chest.y - surface, np.maximum(0.07, 2 * scene.chest.pixel))
    veil = (0.15 + 0.55 * scene.severity) * soft_step(scene.chest.y, 0.9)
    layered = (body.ap > 0) & (scene.uniform(2) < 0.35)
    return affected * np.where(layered, veil, fluid)


def _atelectasis(scene: _Scene) -> np.ndarray:
    return np.where(scene.body.lobar > 0, _collapsed_lobe(scene), _plates(scene))


def _plates(scene: _Scene) -> np.ndarray:
    """One to three thin, nearly horizontal bands in the lower half of a lung."""
    opacity = np.zeros_like(scene.chest.x)
    sign = scene.body.collapse_side
    for plate in range(3):
        first = 12 + 5 * plate
        shown = 1.0 if plate == 0 else scene.uniform(first) < 0.5
        angle = scene.uniform(first + 1, -0.45, 0.45)
        dx = scene.chest.x - sign * scene.uniform(first + 2, 0.24, 0.46)
        dy = scene.chest.y - scene.uniform(first + 3, -0.15, 0.28)
        along = dx * np.cos(angle) + dy * np.sin(angle)
        across = dy * np.cos(angle) - dx * np.sin(angle)
        length = scene.uniform(first + 4, 0.13, 0.24)
        width = np.maximum(0.016 + 0.012 * scene.severity, 0.6 * scene.chest.pixel)
        band = np.exp(-np.square(across / width)) * soft_step(length - np.abs(along), 0.1)
        opacity = np.maximum(opacity, shown * band)
    return opacity * np.minimum(0.08 + 0.90 * scene.severity, 0.85)


def _collapsed_lobe(scene: _Scene) -> np.ndarray:
    """A wedge of airless lung beside the heart, above a raised diaphragm (raised in `body`)."""
    affected = scene.chest.left == (scene.body.collapse_side > 0)
    height = 0.25 + 0.35 * scene.severity
    reach = 0.16 + 0.34 * scene.severity
    depth = (scene.chest.y - scene.chest.diaphragm + height) / height
    wedge = soft_step(reach * np.clip(depth, 0.0, 1.0) - scene.chest.lateral + 0.06, 0.06)
    return affected * np.minimum(0.1 + 1.1 * scene.severity, 0.95) * wedge * (depth > 0)


def _pneumonia(scene: _Scene) -> np.ndarray:
    """Patchy consolidation: soft blobs around one centre, uneven inside."""
    sign = np.where(scene.side(28), 1.0, -1.0)
    centre_x = sign * scene.uniform(29, 0.22, 0.48)
    centre_y = scene.uniform(30, -0.45, 0.25)
    density = np.zeros_like(scene.chest.x)
    for blob in range(5):
        first = 31 + 3 * blob
        dx = scene.chest.x - centre_x - scene.uniform(first, -0.16, 0.16)
        dy = scene.chest.y - centre_y - scene.uniform(first + 1, -0.20, 0.20)
        radius = scene.uniform(first + 2, 0.05, 0.12) * (0.75 + 0.5 * scene.severity)
        density += np.exp(-(dx * dx + dy * dy) / (radius * radius))
    texture = patchy_pattern(scene.body, scene.chest.x, scene.chest.y)
    uneven = np.clip(1.0 + 0.7 * texture, 0.1, 2.2)
    return 0.85 * (1.0 - np.exp(-1.7 * scene.severity * density * uneven))


_OPACITIES: dict[str, Callable[[_Scene], np.ndarray]] = {
    "atelectasis": _atelectasis,
    "pleural_effusion": _effusion,
    "pneumonia": _pneumonia,
}
