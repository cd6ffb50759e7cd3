"""One DICOM file to greyscale pixels: what is read of it, its checks and its decompression.

Only the elements that describe pixels are read, so that no patient element is ever in memory, in a
warning or in an error. What the stored values mean is in `dicom_grey`.

Source: DICOM PS3.3, C.7.6.3 (image pixel); PS3.5, A.4 (compressed frames).
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder, pixel_array
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dpmed.data.dicom_codestream import codestream_size
from dpmed.data.dicom_grey import DicomError, stored_to_grey, stored_to_modality
from dpmed.data.preprocessing import MAX_PIXELS, Preprocessing

PIXEL_ELEMENTS = [
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames",
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleIntercept", "RescaleSlope",
    "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "PresentationLUTShape", "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "PixelData", "FloatPixelData", "DoubleFloatPixelData",
]  # fmt: skip
REQUIRED_ELEMENTS = (
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated",
)  # fmt: skip
PHOTOMETRIC_INTERPRETATIONS = (
    "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT",
    "YBR_RCT", "YBR_PARTIAL_420", "YBR_PARTIAL_422",
)  # fmt: skip
OVERLAY_BIT_POSITION = Tag(0x6000, 0x0102)
PIXEL_TAGS = [*map(Tag, PIXEL_ELEMENTS), OVERLAY_BIT_POSITION]


def read_dicom(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    """The one frame of a DICOM file, uint8 or uint16 (height, width), bright where X-rays stop.

    Guarantee:
        An error of this function holds no value of the file apart from its size, its number of
        frames and the names of its compression and colour space.

    Raises:
        DicomError: no pixels, several frames, a compression without decoder, or a broken file.
    """
    with _told_plainly():
        stored, dataset = _read_stored(path, PIXEL_TAGS)
        return stored_to_grey(stored, dataset, preprocessing)


def read_slice(path: Path, elements: Sequence[str]) -> tuple[np.ndarray, pydicom.Dataset]:
    """One slice of a series in the unit of its modality (HU for CT), and the elements asked for.

    Args:
        path: the file.
        elements: keywords of elements to read besides those that describe pixels; none that
            tells of the patient.

    Returns:
        float32 (rows, columns), and the data set without pixels.

    Raises:
        DicomError: as `read_dicom`, or a slice in colour.
    """
    with _told_plainly():
        stored, dataset = _read_stored(path, [*PIXEL_TAGS, *map(Tag, elements)])
        for name in PIXEL_ELEMENTS[-3:]:
            if name in dataset:
                del dataset[name]
        return stored_to_modality(stored, dataset), dataset


def _read_stored(path: Path, tags: Sequence[Any]) -> tuple[np.ndarray, pydicom.Dataset]:
    dataset = pydicom.dcmread(path, force=True, specific_tags=list(tags))
    _check_header(dataset)
    return _stored_pixels(dataset), dataset


@contextmanager
def _told_plainly() -> Iterator[None]:
    """Only this module's own words leave: pydicom's messages may quote the file."""
    with _silent():
        try:
            yield
        except DicomError:
            raise
        except MemoryError:
            raise DicomError("it needs more memory than there is") from None
        except Exception as error:
            raise DicomError(f"it is broken DICOM ({type(error).__name__})") from None


def _check_header(dataset: pydicom.Dataset) -> None:
    if not any(name in dataset for name in PIXEL_ELEMENTS[-3:]):
        raise DicomError("it is DICOM without pixels, or no DICOM at all")
    missing = [name for name in REQUIRED_ELEMENTS if name not in dataset]
    if missing:
        raise DicomError(f"its header lacks {', '.join(missing)}")
    if dataset.PhotometricInterpretation not in PHOTOMETRIC_INTERPRETATIONS:
        raise DicomError("its photometric interpretation is neither monochrome nor a known colour")
    num_frames = int(dataset.get("NumberOfFrames") or 1)
    if num_frames > 1:
        raise DicomError(f"it holds {num_frames} frames; export the one to use as its own file")
    num_pixels = math.prod(_size(dataset))
    if not 0 < num_pixels <= MAX_PIXELS:
        raise DicomError(f"its header claims {dataset.Columns}x{dataset.Rows} pixels")


def _stored_pixels(dataset: pydicom.Dataset) -> np.ndarray:
    """The stored values (rows, columns) or (rows, columns, 3), decompressed, colours as RGB."""
    syntax = dataset.file_meta.get("TransferSyntaxUID") or _guessed_syntax(dataset)
    dataset.file_meta.TransferSyntaxUID = syntax
    # Bits above the stored ones are picture where the header is wrong, unless they are an overlay.
    options: dict[str, Any] = {"correct_unused_bits": bool(dataset.get(OVERLAY_BIT_POSITION))}
    if not syntax.is_compressed:
        num_bits = math.prod(_size(dataset)) * int(dataset.BitsAllocated)
        if "PixelData" in dataset and len(dataset.PixelData) * 8 < num_bits:
            raise DicomError("it is truncated: it has fewer pixels than its header says")
        return pixel_array(dataset, **options)
    name = syntax.name if syntax.name != str(syntax) else "an unknown compression"
    _check_decoder(syntax, name)
    if syntax == RLELossless:  # that of pylibjpeg-rle ends the process on some broken files
        options["decoding_plugin"] = "pydicom"
    elif codestream_size(get_frame(dataset.PixelData, 0, number_of_frames=1)) != _size(dataset):
        raise DicomError(f"its {name} frame is broken or of another size than its header says")
    try:
        return pixel_array(dataset, **options)
    except (RuntimeError, ValueError):
        raise DicomError(
            f"its pixels, compressed as {name}, cannot be decompressed: they are broken, or a "
            "variant that needs pip install 'dpmed[dicom-gdcm]'"
        ) from None


def _size(dataset: pydicom.Dataset) -> tuple[int, int]:
    return int(dataset.Rows), int(dataset.Columns)


def _guessed_syntax(dataset: pydicom.Dataset) -> UID:
    """The syntax in which a file without meta header was read."""
    is_implicit, is_little_endian = dataset.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian


def _check_decoder(syntax: UID, name: str) -> None:
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise DicomError(
            f"it is compressed as {name}, for which no decoder is installed; "
            "pip install 'dpmed[dicom-gdcm]' or decompress it first"
        )


@contextmanager
def _silent() -> Iterator[None]:
    """No warning and no log line of the decoders, since they may quote elements of the file."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
