"""From attenuation to grey levels: what a site's machine makes of the rays behind the patient.

Last stage of the drawing. It knows a picture's `Shot` and nothing of the body.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter

from dpmed.data.synthetic.acquisition import Shot, pixel_centres

_DOT = 0.03  # side of one dot of a marker, in half picture widths
_MARKER_REACH = 0.13
_LETTERS = np.array(
    [
        [[int(dot) for dot in line] for line in letter]
        for letter in (
            ("1000", "1000", "1000", "1000", "1000", "1111"),  # L
            ("1110", "1001", "1001", "1110", "1010", "1001"),  # R
        )
    ],
    dtype=np.float32,
)


def develop(
    attenuation: np.ndarray, shot: Shot, generators: list[np.random.Generator]
) -> np.ndarray:
    """Turn attenuation into a uint8 picture: scatter, curve, noise, border, marker.

    Args:
        attenuation: shape (B, H, W).
        shot: the acquisition of each picture.
        generators: one generator a picture, used for the pixel noise only.
    """
    size = attenuation.shape[1]
    haze = uniform_filter(
        attenuation, size=(0, _odd(0.30 * size), _odd(0.30 * size)), mode="nearest"
    )
    signal = attenuation + shot.scatter * (haze - attenuation)
    signal = signal + shot.sharpening * 0.25 * (signal - haze)
    grey = 1.0 / (1.0 + np.exp((shot.exposure - signal) / shot.latitude))
    floor = 1.0 / (1.0 + np.exp((shot.exposure + 0.02) / shot.latitude))
    grey = np.clip((grey - floor) / (1.0 - floor), 0.0, 1.0) ** shot.gamma
    shape = grey.shape[1:]
    grain = np.stack([g.standard_normal(shape, dtype=np.float32) for g in generators])
    grey += shot.noise * (0.35 + 4.5 * grey * (1.0 - grey)) * grain
    _shutter(grey, shot)
    _mark(grey, shot)
    return (np.clip(grey, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _odd(width: float) -> int:
    return int(width) | 1


def _shutter(grey: np.ndarray, shot: Shot) -> None:
    ticks = pixel_centres(grey.shape[1])
    across, down = ticks[None, None, :], ticks[None, :, None]
    left, top, right, bottom = (shot.edges[:, index] for index in range(4))
    inside = (across > 2 * left - 1) & (across < 1 - 2 * right)
    inside = inside & (down > 2 * top - 1) & (down < 1 - 2 * bottom)
    np.copyto(grey, np.broadcast_to(shot.border, grey.shape), where=~inside)


def _mark(grey: np.ndarray, shot: Shot) -> None:
    """Lay the lead letter of each picture down; lead is white whatever lies behind it."""
    ticks = pixel_centres(grey.shape[1])
    dx = ticks[None, None, :] - shot.marker_x
    dy = ticks[None, :, None] - shot.marker_y
    image, down, across = np.nonzero((np.abs(dx) < _MARKER_REACH) & (np.abs(dy) < _MARKER_REACH))
    dx, dy = dx[image, 0, across], dy[image, down, 0]
    tilt = shot.marker_tilt[image, 0, 0]
    cos, sin = np.cos(tilt), np.sin(tilt)
    column = np.floor((dx * cos + dy * sin) / _DOT + 2.0).astype(int)
    row = np.floor((dy * cos - dx * sin) / _DOT + 3.0).astype(int)
    inside = (column >= 0) & (column < 4) & (row >= 0) & (row < 6)
    letter = shot.marker_right[image, 0, 0].astype(int)
    dots = _LETTERS[letter, np.clip(row, 0, 5), np.clip(column, 0, 3)] * inside
    lead = dots * shot.marker_level[image, 0, 0]
    grey[image, down, across] = np.maximum(grey[image, down, across], lead)
