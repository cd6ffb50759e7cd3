"""Drawing a healthy chest: how much each pixel's ray is attenuated by body, lungs and heart.

Everything is a closed formula over the pixels of a block of pictures, evaluated in the body frame
(see `body`), so any picture size shows the same patient. B pictures, H and W pixels. Attenuation
is 0 in open air and about 1 through the middle of the body. Bones, findings and the scanner come
later.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dpmed.data.synthetic.body import Body


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chest:
    """The drawn parts that the next stages need, each of shape (B, H, W) unless said otherwise.

    Attributes:
        x: horizontal position in the body frame, relative to the mediastinum.
        y: vertical position.
        lateral: distance from the middle of the body.
        left: True on the patient's left side.
        diaphragm: y of the diaphragm at the pixel's place.
        wall: distance to the inner chest wall, positive inside.
        middle: distance to the silhouette of heart and mediastinum, positive outside.
        lung: share of a full lung on the ray, 0 to 1.
        solid: attenuation of everything but lungs and bones.
        pixel: width of a pixel in the body frame, shape (B, 1, 1).
    """

    x: np.ndarray
    y: np.ndarray
    lateral: np.ndarray
    left: np.ndarray
    diaphragm: np.ndarray
    wall: np.ndarray
    middle: np.ndarray
    lung: np.ndarray
    solid: np.ndarray
    pixel: np.ndarray

    def select(self, rows: np.ndarray) -> Chest:
        """The chests of some rows of the block."""
        fields = {f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)}
        return Chest(**fields)


def draw_chest(body: Body, x: np.ndarray, y: np.ndarray, pixel: np.ndarray) -> Chest:
    """Draw a block of healthy chests.

    Args:
        body: B bodies.
        x: horizontal position of each pixel in the body frame, shape (B, H, W).
        y: vertical position, shape (B, H, W).
        pixel: width of a pixel in the body frame, shape (B, 1, 1).
    """
    left = x > 0
    lateral = np.abs(x)
    diaphragm = _diaphragm(body, lateral, left)
    wall = _wall(body, lateral, y)
    centred = x - body.midline
    middle = _mediastinum(body, centred, y)
    return Chest(
        x=centred,
        y=y,
        lateral=lateral,
        left=left,
        diaphragm=diaphragm,
        wall=wall,
        middle=middle,
        lung=_lung(wall, diaphragm - y, middle, pixel),
        solid=_soft_tissue(body, centred, lateral, y, diaphragm),
        pixel=pixel,
    )


def soft_step(distance: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """0 below -width/2, 1 above width/2, smooth between."""
    t = np.clip(distance / width + 0.5, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def soft_minimum(first: np.ndarray, second: np.ndarray, blend: float) -> np.ndarray:
    """The smaller of two distances, rounded where they differ by less than `blend`."""
    overlap = np.maximum(blend - np.abs(first - second), 0.0)
    return np.minimum(first, second) - overlap * overlap * (0.25 / blend)


def dome(inside: np.ndarray) -> np.ndarray:
    """Thickness of a rounded edge: 0 at 0, rising steeply, flat at 1."""
    t = np.clip(inside, 0.0, 1.0)
    return np.sqrt(t * (2.0 - t))


def by_side(pair: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The right or left entry of a (B, 2, 1, 1) pair, for each pixel."""
    return np.where(left, pair[:, 1], pair[:, 0])


def _diaphragm(body: Body, lateral: np.ndarray, left: np.ndarray) -> np.ndarray:
    offset = lateral / body.thorax_width - 0.46
    return by_side(body.dome, left) + body.dome_curve * offset * offset


def _wall(body: Body, lateral: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance to the inner chest wall: a dome above its widest level, straight below."""
    centre = 0.44 * body.thorax_width
    widest = 0.14
    across = lateral - centre
    across = across * np.where(across > 0, 1 / (body.thorax_width - centre), 1 / (0.9 * centre))
    up = np.minimum(y - widest, 0.0) / (widest - body.lung_top)
    return (1.0 - np.sqrt(across * across + up * up)) * 0.37


def _mediastinum(body: Body, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance to the silhouette of heart, great vessels and spine, positive outside."""
    strip = np.abs(x) - body.mediastinum - 0.10 * np.maximum(-0.50 - y, 0.0)
    knob = np.sqrt(np.square(x - 0.055) + np.square(y + 0.34)) - body.knob
    trunk = np.sqrt(np.square(x - 0.055) + np.square(y + 0.12)) - 0.085
    vessels = soft_minimum(soft_minimum(strip, knob, 0.06), trunk, 0.08)
    return soft_minimum(vessels, _heart(body, x, y), 0.06)


def _heart(body: Body, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance to a tilted ellipse whose widest horizontal extent is twice `heart_width`."""
    cos, sin = np.cos(body.heart_tilt), np.sin(body.heart_tilt)
    short = body.heart_width / np.sqrt((body.heart_aspect * cos) ** 2 + sin**2)
    long = short * body.heart_aspect
    half_height = np.sqrt((long * sin) ** 2 + (short * cos) ** 2)
    floor = body.dome.mean(axis=1) + 0.10
    dx = x - body.heart_left * body.heart_width
    dy = y - (floor - 0.66 * half_height)
    along = (dx * cos + dy * sin) / long
    across = (dy * cos - dx * sin) / short
    return (np.sqrt(along * along + across * across) - 1.0) * short


def _lung(
    wall: np.ndarray, above_diaphragm: np.ndarray, middle: np.ndarray, pixel: np.ndarray
) -> np.ndarray:
    """Share of lung on each ray: sharp at heart and diaphragm, thinning towards the wall."""
    edge = np.maximum(0.022, pixel)
    free = soft_step(soft_minimum(middle, above_diaphragm, 0.07), edge)
    behind_heart = 0.07 * soft_step(above_diaphragm, edge)
    depth = np.clip(0.75 + 0.55 * above_diaphragm, 0.6, 1.0)
    return dome(wall * (1 / 0.20)) * depth * np.maximum(free, behind_heart)


def _soft_tissue(
    body: Body, x: np.ndarray, lateral: np.ndarray, y: np.ndarray, diaphragm: np.ndarray
) -> np.ndarray:
    """Attenuation of the whole body without lungs and bones."""
    layer = 0.16 + 0.045 * body.fat
    rim = dome(_inside_body(body, layer, lateral, y) / (layer + 0.13))
    below = y - diaphragm
    abdomen = 0.24 * soft_step(below - 0.06, 0.3) - _gas(body, x, y)
    windpipe = soft_step(0.03 - np.abs(x + 0.01), 0.035) * soft_step(-0.24 - y, 0.16)
    neck = 0.12 * soft_step(-0.62 - y, 0.4)
    depth = 0.90 + 0.05 * body.fat + abdomen - 0.13 * windpipe - neck
    return rim * depth + _breasts(body, lateral, y)


def _inside_body(body: Body, layer: np.ndarray, lateral: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance to the skin, positive inside: trunk below the shoulder line, neck, arms."""
    flare = 0.30 * soft_step(-0.42 - y, 0.36)
    side = body.thorax_width + layer + flare - lateral
    shoulder_line = -0.97 + 0.42 * soft_step(lateral - 0.62, 1.0)
    trunk = soft_minimum(side, 0.9 * (y - shoulder_line), 0.12)
    neck = 0.21 + 0.02 * body.fat - lateral
    arm_axis = 0.97 + 0.04 * body.fat + body.arms * (y + 0.45)
    arm = soft_minimum(0.18 + 0.03 * body.fat - np.abs(lateral - arm_axis), y + 0.70, 0.20)
    return -soft_minimum(-np.maximum(trunk, arm), -neck, 0.10)


def _gas(body: Body, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Air in the stomach, under the left dome."""
    dx = (x - body.gas_x) / (1.6 * body.gas_size)
    dy = (y - body.dome[:, 1] - 0.06 - 0.7 * body.gas_size) / body.gas_size
    folds = 0.35 * np.sin(5.0 * dx + 40.0 * body.gas_x) * np.sin(4.0 * dy + 90.0 * body.gas_size)
    return body.gas_depth * dome(0.7 * (1.0 - dx * dx - dy * dy + folds))


def _breasts(body: Body, lateral: np.ndarray, y: np.ndarray) -> np.ndarray:
    radius = np.maximum(body.breast, 0.05)
    dx = (lateral - 0.68 * body.thorax_width) / (1.2 * radius)
    dy = (y - body.breast_drop) / radius
    dy = np.maximum(dy, -0.65 * dy)
    return 0.60 * body.breast * dome(0.6 * (1.0 - dx * dx - dy * dy))
