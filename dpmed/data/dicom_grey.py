"""What the stored values of a DICOM file look like: rescale, window, padding and MONOCHROME1.

The photometric tag is believed unless the settings override it or the file contradicts itself.

Source: DICOM PS3.3, C.7.6.3 (image pixel), C.11.1 (modality LUT), C.11.2 (VOI LUT).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut

from dpmed.data.preprocessing import Preprocessing

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow's "L"
INVERSE_SHAPE = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}


class DicomError(Exception):
    """Why a file is refused, in words that hold nothing of its patient elements."""


def stored_to_grey(
    stored: np.ndarray, dataset: pydicom.Dataset, preprocessing: Preprocessing
) -> np.ndarray:
    """Stored values as uint8 or uint16 (height, width), black to white as a viewer shows them.

    Args:
        stored: (rows, columns), or (rows, columns, 3) RGB.
        dataset: the elements that describe pixels.
        preprocessing: whether the window and the photometric tag are believed.

    Raises:
        DicomError: elements that contradict one another or make no grey scale.
    """
    if stored.ndim == 3 or dataset.PhotometricInterpretation == "PALETTE COLOR":
        return _colour_to_grey(stored, dataset)
    stored = _sign_extended(stored, dataset)
    padding = _padding(stored, dataset)
    values, low, high = _window(_rescale(stored, dataset), stored, dataset, preprocessing)
    unit = np.clip((values - low) / (high - low), 0.0, 1.0).astype(np.float32)
    if _photometric(dataset, preprocessing) == "MONOCHROME1":
        unit = 1.0 - unit
    if padding is not None and not padding.all():
        unit[padding] = unit[~padding].min()
    return _scaled(unit, dataset)


def stored_to_modality(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Stored values as float32 (height, width) in the unit of the modality: HU for CT.

    Padding becomes the smallest value of the picture.

    Raises:
        DicomError: a picture in colour, or elements that contradict one another.
    """
    if stored.ndim == 3 or dataset.PhotometricInterpretation == "PALETTE COLOR":
        raise DicomError("it is in colour, which no slice of a volume is")
    stored = _sign_extended(stored, dataset)
    padding = _padding(stored, dataset)
    values = _rescale(stored, dataset).astype(np.float32)
    if padding is not None and not padding.all():
        values[padding] = values[~padding].min()
    return values


def _sign_extended(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Negative values whose writer left the bits above the stored ones at zero."""
    if stored.dtype.kind != "i":
        return stored
    num_values = 2 ** int(dataset.BitsStored)
    if stored.min() < 0 or not num_values // 2 <= stored.max() < num_values:
        return stored
    return np.where(stored >= num_values // 2, stored - num_values, stored)


def _photometric(dataset: pydicom.Dataset, preprocessing: Preprocessing) -> str:
    if preprocessing.photometric != "tag":
        return preprocessing.photometric.upper()
    tag = str(dataset.PhotometricInterpretation)
    if tag not in INVERSE_SHAPE:
        raise DicomError(f"it is {tag} with one sample a pixel")
    shape = dataset.get("PresentationLUTShape")
    if shape in INVERSE_SHAPE.values() and shape != INVERSE_SHAPE[tag]:
        raise DicomError(
            f"it contradicts itself: {tag} with the presentation LUT shape {shape}; "
            "say which is right with photometric=monochrome1 or monochrome2"
        )
    return tag


def _rescale(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Stored values to the units in which the window is given (modality LUT or rescale)."""
    if dataset.get("ModalityLUTSequence"):
        return _look_up(stored, dataset.ModalityLUTSequence[0])[0]
    slope, intercept = _rescale_of(dataset)
    return stored.astype(np.float64) * slope + intercept


def _window(
    values: np.ndarray,
    stored: np.ndarray,
    dataset: pydicom.Dataset,
    preprocessing: Preprocessing,
) -> tuple[np.ndarray, float, float]:
    """Values, and the two of them that become black and white."""
    if preprocessing.apply_window and dataset.get("VOILUTSequence"):
        shown, num_bits = _look_up(values, dataset.VOILUTSequence[0])
        return shown, 0.0, 2.0**num_bits - 1
    if preprocessing.apply_window and "WindowWidth" in dataset and "WindowCenter" in dataset:
        return _windowed(values, dataset)
    if dataset.get("ModalityLUTSequence"):
        return values, 0.0, 2.0 ** _descriptor(dataset.ModalityLUTSequence[0])[2] - 1
    slope, intercept = _rescale_of(dataset)
    ends = [end * slope + intercept for end in _stored_range(stored, dataset)]
    return values, min(ends), max(ends)


def _windowed(values: np.ndarray, dataset: pydicom.Dataset) -> tuple[np.ndarray, float, float]:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3; of several windows the first."""
    centre, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if not width > 0 or not np.isfinite([centre, width]).all():
        raise DicomError("its window width is not positive; apply_window=false ignores the window")
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(-4.0 * (values - centre) / width)), 0.0, 1.0
    if function == "LINEAR_EXACT" or width <= 1:
        return values, centre - width / 2, centre + width / 2
    return values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2


def _stored_range(stored: np.ndarray, dataset: pydicom.Dataset) -> tuple[float, float]:
    """The range that the header promises, widened where the pixels prove it wrong."""
    if stored.dtype.kind == "f":
        return float(stored.min()), float(stored.max()) + float(stored.min() == stored.max())
    num_bits = int(dataset.BitsStored)
    signed = stored.dtype.kind == "i"
    low, high = (
        (-(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1) if signed else (0, 2**num_bits - 1)
    )
    if stored.min() < low or stored.max() > high:
        limits = np.iinfo(stored.dtype)
        return float(limits.min), float(limits.max)
    return float(low), float(high)


def _padding(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray | None:
    """Where the scanner put no picture, which must not stretch the grey scale."""
    if "PixelPaddingValue" not in dataset:
        return None
    ends = [_first(dataset.PixelPaddingValue)]
    ends.append(_first(dataset.get("PixelPaddingRangeLimit", ends[0])))
    return (stored >= min(ends)) & (stored <= max(ends))


def _look_up(values: np.ndarray, item: pydicom.Dataset) -> tuple[np.ndarray, int]:
    """Values through a LUT item, and the number of bits of its entries."""
    num_entries, first, num_bits = _descriptor(item)
    data = item.LUTData
    entries = np.frombuffer(data, dtype="<u2") if isinstance(data, bytes) else np.array(data)
    position = np.clip(values.astype(np.float64) - first, 0, min(num_entries, len(entries)) - 1)
    return entries[np.rint(position).astype(np.int64)].astype(np.float64), num_bits


def _descriptor(item: pydicom.Dataset) -> tuple[int, int, int]:
    num_entries, first, num_bits = (int(value) for value in item.LUTDescriptor)
    return num_entries or 2**16, first, num_bits


def _colour_to_grey(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    grey = stored[..., :3].astype(np.float32) @ LUMINANCE
    return _scaled(grey / np.float32(np.iinfo(stored.dtype).max), dataset)


def _scaled(unit: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Values in [0, 1] as uint8 where the file has at most 8 bits, else as uint16."""
    few_bits = int(dataset.get("BitsStored", 16)) <= 8
    full_scale = 255 if few_bits else 65535
    return np.rint(unit * full_scale).astype(np.uint8 if few_bits else np.uint16)


def _rescale_of(dataset: pydicom.Dataset) -> tuple[float, float]:
    slope = _first(dataset.get("RescaleSlope", 1))
    intercept = _first(dataset.get("RescaleIntercept", 0))
    if not slope or not np.isfinite([slope, intercept]).all():
        raise DicomError("its rescale slope is zero or not a number")
    return slope, intercept


def _first(value: Any) -> float:
    """The first of one or several numbers; an empty element counts as no number."""
    values = np.atleast_1d(np.asarray(value, dtype=np.float64))
    return float(values[0]) if values.size else float("nan")
