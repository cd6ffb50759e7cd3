"""Duplicates made on purpose, to measure how many of them the comparison finds.

A copy is turned by up to 5 degrees (the frame kept or enlarged), resized to between half and twice
its size and saved as JPEG of quality 50 to 95: what happens to a picture on its way into another
collection.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_DEGREES, MIN_SCALE, MAX_SCALE, MIN_QUALITY, MAX_QUALITY = 5.0, 0.5, 2.0, 50, 95
_FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
_SMALLEST = 16  # pixels


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is done to a copy.

    Args:
        degrees: rotation; what the frame loses at its corners becomes black.
        is_enlarged: whether the frame grows, so that nothing is cut off.
        scale: of both sides in pixels.
        resampling: Pillow's filter.
        quality: of the JPEG.
    """

    degrees: float
    is_enlarged: bool
    scale: float
    resampling: Image.Resampling
    quality: int


def draw_change(generator: np.random.Generator) -> Change:
    """A random change; scales are uniform in their logarithm."""
    return Change(
        degrees=generator.uniform(-MAX_DEGREES, MAX_DEGREES),
        is_enlarged=bool(generator.integers(2)),
        scale=math.exp(generator.uniform(math.log(MIN_SCALE), math.log(MAX_SCALE))),
        resampling=_FILTERS[generator.integers(len(_FILTERS))],
        quality=int(generator.integers(MIN_QUALITY, MAX_QUALITY + 1)),
    )


def changed_copy(pixels: NDArray[np.uint8], change: Change) -> NDArray[np.uint8]:
    """A changed copy of a greyscale image (height, width)."""
    picture = Image.fromarray(pixels).rotate(
        change.degrees, Image.Resampling.BICUBIC, expand=change.is_enlarged
    )
    width, height = (max(_SMALLEST, round(side * change.scale)) for side in picture.size)
    stream = io.BytesIO()
    picture.resize((width, height), change.resampling).save(stream, "JPEG", quality=change.quality)
    return np.asarray(Image.open(stream).convert("L"))
