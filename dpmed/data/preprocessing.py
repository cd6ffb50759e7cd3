"""What is done to one image between its file and the model: a frozen setting and its function.

Every step looks at that image alone. Statistics over images would be a query to private data.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from dpmed.errors import UserError, did_you_mean

Intensity = Literal["none", "minmax", "percentile"]
Photometric = Literal["tag", "monochrome1", "monochrome2"]
MAX_PIXELS = 150_000_000  # a radiograph has at most some 30 million; more is a broken header
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 4096


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The steps from decoded pixels to a square uint8 image, and two choices for DICOM files.

    Args:
        image_size: side of the result in pixels.
        keep_aspect_ratio: fit the image into the square and fill the rest with black; otherwise
            stretch it.
        intensity: "none" keeps the range that the file declares, "minmax" stretches the image's
            own range, "percentile" stretches between two of its percentiles and clips.
        low_percentile: in percent, for "percentile".
        high_percentile: in percent, for "percentile".
        equalize: equalise the histogram after that.
        apply_window: use the window (VOI) stored in a DICOM file.
        photometric: "tag" believes a DICOM file's photometric interpretation; the other two
            override it for data sets whose tag is known to be wrong.

    Raises:
        UserError: a value that is not allowed.
    """

    image_size: int
    keep_aspect_ratio: bool = False
    intensity: Intensity = "minmax"
    low_percentile: float = 1.0
    high_percentile: float = 99.0
    equalize: bool = False
    apply_window: bool = True
    photometric: Photometric = "tag"

    def __post_init__(self) -> None:
        if not MIN_IMAGE_SIZE <= self.image_size <= MAX_IMAGE_SIZE:
            raise UserError(
                f"image_size={self.image_size} must be from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}."
            )
        _check_choice("intensity", self.intensity, get_args(Intensity))
        _check_choice("photometric", self.photometric, get_args(Photometric))
        if not 0 <= self.low_percentile < self.high_percentile <= 100:
            raise UserError(
                f"low_percentile={self.low_percentile} must be below "
                f"high_percentile={self.high_percentile}, both from 0 to 100."
            )

    def describe(self) -> dict[str, Any]:
        """The settings as plain values, for the data sheet and the key of the cache."""
        return asdict(self)


def preprocessing_preset(name: str, *, image_size: int) -> Preprocessing:
    """A named recipe: "default", or "papers".

    Source:
        "papers" is the recipe of the studies that this project follows: aspect ratio not kept,
        min-max of each image, 8 bits, histogram equalisation.

    Raises:
        UserError: no preset of this name.
    """
    presets = {
        "default": Preprocessing(image_size=image_size),
        "papers": Preprocessing(image_size=image_size, equalize=True),
    }
    _check_choice("preset", name, tuple(presets))
    return presets[name]


def preprocess(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """A decoded greyscale image as uint8 (image_size, image_size).

    Args:
        pixels: uint8 or uint16 (height, width), bright where the picture is bright.
        preprocessing: the settings.
    """
    width, height = _fitted_size(pixels.shape, preprocessing)
    # uint8 is resized as it is, three times as fast; uint16 goes through float32.
    image = Image.fromarray(pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32))
    resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0))
    grey = _to_uint8(resized, float(np.iinfo(pixels.dtype).max), preprocessing)
    if preprocessing.equalize:
        grey = np.asarray(ImageOps.equalize(Image.fromarray(grey)))
    size = preprocessing.image_size
    if grey.shape == (size, size):
        return grey
    result = np.zeros((size, size), dtype=np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    result[top : top + height, left : left + width] = grey
    return result


def looks_inverted(image: np.ndarray) -> bool:
    """True where a chest radiograph's centre is much darker than its upper corners.

    Air beside the neck is dark and the mediastinum is bright in a frontal radiograph that is shown
    in the usual way, so the opposite hints at a wrong photometric tag. It is a hint for a person:
    nothing is changed by it. On 2,520 radiographs of two hospitals 1 was flagged as it is (it has a
    white border), and 94 % when inverted.

    Args:
        image: uint8 (height, width), after `preprocess`.
    """
    height, width = image.shape
    corner_height, corner_width = max(1, height // 8), max(1, width // 8)
    corners = np.concatenate(
        [image[:corner_height, :corner_width], image[:corner_height, -corner_width:]], axis=1
    )
    centre = image[height // 3 : 2 * height // 3, 7 * width // 16 : 9 * width // 16]
    return bool(np.median(corners) > np.median(centre) + 64)


def _fitted_size(shape: tuple[int, ...], preprocessing: Preprocessing) -> tuple[int, int]:
    size = preprocessing.image_size
    if not preprocessing.keep_aspect_ratio:
        return size, size
    height, width = shape
    scale = size / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _to_uint8(resized: np.ndarray, full_scale: float, preprocessing: Preprocessing) -> np.ndarray:
    if preprocessing.intensity == "none":
        low, high = 0.0, full_scale
    elif preprocessing.intensity == "minmax":
        low, high = float(resized.min()), float(resized.max())
    else:
        percentiles = [preprocessing.low_percentile, preprocessing.high_percentile]
        low, high = (float(value) for value in np.percentile(resized, percentiles))
    if high <= low:  # one flat grey has no contrast to stretch
        low, high = 0.0, full_scale
    scaled = (resized.astype(np.float32) - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(
            f"{name}={value!r} must be one of {', '.join(allowed)}.{did_you_mean(value, allowed)}"
        )
