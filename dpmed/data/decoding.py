"""One image file to greyscale pixels: PNG (8 and 16 bit), JPEG and DICOM, told by their content.

A file that cannot be decoded is named with its reason; nothing is guessed and no half image is
passed on. What a DICOM file says of its patient is never read into a message.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from dpmed.data.preprocessing import MAX_PIXELS, Preprocessing, preprocess
from dpmed.errors import UserError

DECODING_VERSION = 1  # raise it when the same file would give other pixels
DICOM_SUFFIXES = {".dcm", ".dicom", ".dic"}
RASTER_FORMATS = ("PNG", "JPEG")
RASTER_SUFFIXES = {".png", ".jpg", ".jpeg"}
SIXTEEN_BIT_MODES = {"I;16", "I;16B", "I;16L", "I;16N"}


class UnreadableImageError(UserError):
    """A file that cannot be decoded; `reason` is a clause without the file's name."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"cannot decode {path}: {reason}.")
        self.reason = reason


def decode_image(path: Path | str, preprocessing: Preprocessing) -> np.ndarray:
    """A file as uint8 (image_size, image_size).

    Raises:
        UnreadableImageError: naming the file and the reason.
    """
    return preprocess(read_pixels(path, preprocessing), preprocessing)


def read_pixels(path: Path | str, preprocessing: Preprocessing) -> np.ndarray:
    """A file's pixels, greyscale, uint8 or uint16 (height, width), before any resizing.

    Raises:
        UnreadableImageError: naming the file and the reason.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            start = stream.read(132)
    except OSError as error:
        raise UnreadableImageError(file, error.strerror or type(error).__name__) from None
    if not start:
        raise UnreadableImageError(file, "the file is empty")
    try:
        if start[128:] == b"DICM" or file.suffix.lower() in DICOM_SUFFIXES:
            from dpmed.data.dicom import read_dicom  # pydicom takes a second to import

            return read_dicom(file, preprocessing)
        return _read_raster(file)
    except UnreadableImageError:
        raise
    # A broken file makes a decoder raise nearly anything, and each of them means the same here.
    except Exception as error:
        raise UnreadableImageError(file, _reason(error)) from None


def _read_raster(path: Path) -> np.ndarray:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES, "half images would pass as whole ones"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong is refused, not warned about
        with Image.open(path, formats=RASTER_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImageError(path, f"its header claims {image.width}x{image.height}")
            if getattr(image, "n_frames", 1) > 1:
                raise UnreadableImageError(path, "it holds several frames")
            return _to_grey(image)


def _to_grey(image: Image.Image) -> np.ndarray:
    if image.mode in SIXTEEN_BIT_MODES:
        return np.asarray(image).astype(np.uint16)
    if image.mode == "I":
        return np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
    if image.mode in ("P", "PA", "RGBA", "CMYK"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L"))


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is neither PNG, JPEG nor DICOM"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
