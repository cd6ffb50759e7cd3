"""Drawing a healthy chest: how much each pixel's ray is attenuated by body, lungs, heart and bone.

Everything is a closed formula over the pixels of a block of pictures, evaluated in the body frame
(see `body`), so any picture size shows the same patient. B pictures, H and W pixels. Attenuation is
0 in open air and about 1 through the middle of the body. Findings and the scanner come later.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dpmed.data.synthetic.body import Body


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chest:
    """The drawn parts that findings need, each of shape (B, H, W).

    Attributes:
        x: horizontal position in the body frame, relative to the mediastinum.
        y: vertical position.
        lateral: distance from the mediastinum, |x|.
        left: True on the patient's left side.
        diaphragm: y of the diaphragm at the pixel's x.
        wall: distance to the inner chest wall, positive inside.
        lung: share of the ray's lung that is there, 0 to 1.
        solid: attenuation without lungs.
        bone: attenuation of the bones.
        pixel: width of a pixel in the body frame, shape (B, 1, 1).
    """

    x: np.ndarray
    y: np.ndarray
    lateral: np.ndarray
    left: np.ndarray
    diaphragm: np.ndarray
    wall: np.ndarray
    lung: np.ndarray
    solid: np.ndarray
    bone: np.ndarray
    pixel: np.ndarray


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
    wall = _wall_distance(body, lateral, y)
    centred = x - body.midline
    middle = _mediastinum(body, centred, y, pixel)
    lung = _lung(wall, diaphragm - y, middle, pixel)
    solid = _soft_tissue(body, x, y, lateral, diaphragm, pixel)
    bone = _bones(body, centred, lateral, y, wall, diaphragm, pixel)
    return Chest(
        x=centred,
        y=y,
        lateral=lateral,
        left=left,
        diaphragm=diaphragm,
        wall=wall,
        lung=lung,
        solid=solid,
        bone=bone,
        pixel=pixel,
    )


def soft_step(distance: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """0 below -width/2, 1 above width/2, smooth between."""
    t = np.clip(distance / width + 0.5, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def by_side(pair: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The right or left entry of a (B, 2, 1, 1) pair, for each pixel."""
    return np.where(left, pair[:, 1], pair[:, 0])


def _diaphragm(body: Body, lateral: np.ndarray, left: np.ndarray) -> np.ndarray:
    offset = lateral / body.thorax_width - 0.48
    return by_side(body.dome, left) + body.dome_curve * offset * offset


def _wall_distance(body: Body, lateral: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance to the inner chest wall: a dome above the widest level, a slight flare below."""
    centre = 0.44 * body.thorax_width
    widest = 0.12
    across = lateral - centre
    across = across * np.where(across > 0, 1 / (body.thorax_width - centre), 1 / (0.86 * centre))
    up = np.minimum(y - widest, 0.0) / (widest - body.lung_top)
    radius = np.sqrt(across * across * (1 + 0.0 * up) + up * up)
    return (1.0 - radius) * 0.37


def _mediastinum(body: Body, x: np.ndarray, y: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Signed distance to the silhouette of heart and mediastinum, positive outside."""
    strip = np.abs(x) - body.mediastinum - 0.05 * np.maximum(-0.45 - y, 0.0)
    heart = _heart_distance(body, x, y)
    knob = np.hypot(x - 0.075, y + 0.33) - body.knob
    return np.minimum(np.minimum(strip, heart), knob)


def _heart_distance(body: Body, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to a tilted ellipse whose widest horizontal extent is twice heart_width."""
    cos, sin = np.cos(body.heart_tilt), np.sin(body.heart_tilt)
    short = body.heart_width / np.sqrt((body.heart_aspect * cos) ** 2 + sin**2)
    long = short * body.heart_aspect
    half_height = np.sqrt((long * sin) ** 2 + (short * cos) ** 2)
    floor = body.dome.mean(axis=1) + 0.08
    dx = x - body.heart_left * body.heart_width
    dy = y - (floor - 0.80 * half_height)
    along = (dx * cos + dy * sin) / long
    across = (dy * cos - dx * sin) / short
    return (np.sqrt(along * along + across * across) - 1.0) * short


def _lung(
    wall: np.ndarray, above_diaphragm: np.ndarray, outside_heart: np.ndarray, pixel: np.ndarray
) -> np.ndarray:
    """Share of lung on each ray: sharp at heart and diaphragm, thinning towards the wall."""
    edge = np.maximum(0.025, 1.2 * pixel)
    thickness = np.clip(wall / 0.22, 0.0, 1.0)
    thickness = np.sqrt(thickness * (2.0 - thickness))
    base = soft_step(above_diaphragm, edge)
    depth = np.clip(above_diaphragm * 1.2, 0.0, 0.5)
    middle = 0.10 + 0.90 * soft_step(outside_heart, edge)
    return thickness * base * middle * (0.62 + 0.76 * depth)


def _soft_tissue(
    body: Body,
    x: np.ndarray,
    y: np.ndarray,
    lateral: np.ndarray,
    diaphragm: np.ndarray,
    pixel: np.ndarray,
) -> np.ndarray:
    """Attenuation of the whole body without lungs and bones."""
    layer = 0.17 + 0.05 * body.fat
    side = body.thorax_width + layer - 0.10 * np.minimum(y + 0.1, 0.0)
    neck = 0.22 + 0.02 * body.fat
    shoulder = neck + (side + 0.45 - neck) * soft_step(y + 0.80, 0.36)
    outline = np.where(y < -0.35, shoulder, side)
    rim = np.clip((outline - lateral) / (layer + 0.12), 0.0, 1.0)
    trunk = np.sqrt(rim * (2.0 - rim))
    arm_x = lateral - (0.93 + 0.05 * body.fat + 0.22 * (y + 0.5))
    arm_radius = 0.15 + 0.03 * body.fat
    arm = np.sqrt(np.clip(1.0 - (arm_x / arm_radius) ** 2, 0.0, 1.0)) * soft_step(y + 0.62, 0.2)
    trunk = np.maximum(trunk, 0.62 * arm)
    abdomen = 0.28 * soft_step(y - diaphragm - 0.03, 0.22)
    breast = _breasts(body, lateral, y, pixel)
    trachea = 0.16 * soft_step(0.034 - np.abs(x - body.midline), 0.04) * soft_step(-0.22 - y, 0.1)
    return trunk * (0.92 + 0.05 * body.fat + abdomen - trachea) + breast


def _breasts(body: Body, lateral: np.ndarray, y: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    radius = np.maximum(body.breast, 0.05)
    dx = (lateral - 0.66 * body.thorax_width) / (1.15 * radius)
    dy = (y - body.breast_drop) / radius
    dy = np.where(dy < 0, 0.7 * dy, dy)
    inside = np.clip(1.0 - dx * dx - dy * dy, 0.0, 1.0)
    return (body.breast > 0) * 0.75 * body.breast * np.sqrt(inside)


def _bones(
    body: Body,
    x: np.ndarray,
    lateral: np.ndarray,
    y: np.ndarray,
    wall: np.ndarray,
    diaphragm: np.ndarray,
    pixel: np.ndarray,
) -> np.ndarray:
    cage = soft_step(wall + 0.035, 0.03) * soft_step(lateral - 0.045, 0.05)
    under = 1.0 - 0.75 * soft_step(y - diaphragm, 0.1)
    relative = lateral / body.thorax_width
    arch = body.rib_slope * (relative**3 * 1.6 - 0.25 * relative)
    posterior = _rib_profile((y - arch) / body.rib_spacing + body.rib_phase, 0.42)
    descent = 0.55 * (1.0 - relative) - 0.25 * relative**4
    anterior = _rib_profile((y - descent) / (1.12 * body.rib_spacing) + body.rib_phase, 0.5)
    anterior *= soft_step(relative - 0.50, 0.3)
    ribs = cage * under * (0.115 * posterior + 0.06 * anterior)
    return body.bone * (ribs + _spine(body, x, y) + _clavicles(body, lateral, y, pixel))


def _rib_profile(phase: np.ndarray, width: float) -> np.ndarray:
    """A band for every whole phase, brighter at its cortical edges."""
    t = np.abs(phase - np.round(phase)) * (2.0 / width)
    band = np.clip(1.0 - t * t, 0.0, 1.0)
    return np.sqrt(band) * (0.65 + 0.6 * t * t)


def _spine(body: Body, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    column = soft_step(0.066 - np.abs(x), 0.03)
    phase = y / (0.86 * body.rib_spacing) + body.rib_phase
    disc = 1.0 - 0.45 * np.exp(-np.square((phase - np.round(phase)) / 0.14))
    return 0.13 * column * disc


def _clavicles(body: Body, lateral: np.ndarray, y: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    centre = body.clavicle - 0.20 * lateral - 0.05 * np.sin(6.5 * lateral - 0.6)
    t = np.abs(y - centre) / 0.034
    band = np.clip(1.0 - t * t, 0.0, 1.0)
    ends = soft_step(lateral - 0.09, 0.05) * soft_step(0.82 - lateral, 0.1)
    return 0.17 * ends * np.sqrt(band) * (0.7 + 0.5 * t * t)
