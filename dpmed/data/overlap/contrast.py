"""The forms in which two pictures are compared: one size, and local contrast instead of grey.

Chest radiographs of different people look alike in grey (correlations above .9); the fine detail,
divided by its own local strength, does not. Works on one image at a time; decides nothing.

Shapes: H = W = SIZE or SIZE / 2 pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

SIZE = 128
_FINE, _COARSE, _NEIGHBOURHOOD = 1.0, 3.0, 6.0  # standard deviations in pixels
_FLOOR = 1.5  # grey values: weaker local contrast is JPEG noise or an empty border
_CLIP = 2.5


def canonical(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Any greyscale image as uint8 (SIZE, SIZE), stretched to the square and to the full range.

    The aspect ratio is not kept, so that a copy which some pipeline squeezed meets its original.
    """
    wide = Image.fromarray(pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32))
    small = np.asarray(wide.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float32)
    low, high = np.percentile(small, [0.5, 99.5])
    scaled = (small - low) * (255.0 / max(high - low, 1e-6))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def local_contrast(image: NDArray[np.uint8], *, size: int = SIZE) -> NDArray[np.float32]:
    """Band-passed image over its local strength, float32 (size, size), clipped.

    Args:
        image: what `canonical` returns.
        size: SIZE, or a whole fraction of it.
    """
    grey = shrink(image, size=size)
    band = gaussian_filter(grey, _FINE) - gaussian_filter(grey, _COARSE)
    strength = np.sqrt(gaussian_filter(band * band, _NEIGHBOURHOOD)) + _FLOOR
    return np.clip(band / strength, -_CLIP, _CLIP).astype(np.float32)


def shrink(image: NDArray[np.uint8], *, size: int) -> NDArray[np.float32]:
    """Block means: (SIZE, SIZE) to (size, size)."""
    step = SIZE // size
    blocks = image.reshape(size, step, size, step).astype(np.float32)
    return blocks.mean(axis=(1, 3))
