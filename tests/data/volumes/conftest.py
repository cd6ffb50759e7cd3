"""Volumes as hospitals keep them: NIfTI files and DICOM series, drawn anew for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

PATIENT = "Doe^Jane"
SHAPE_XYZ = (20, 18, 12)
SPACING = (1.0, 1.0, 2.0)

Write = Callable[..., Path]


def head_XYZ() -> np.ndarray:
    """CT values with a bright box to the left, in front and at the top; RAS axes."""
    volume = np.full(SHAPE_XYZ, -1000, dtype=np.int16)
    volume[2:6, 12:16, 8:11] = 300
    return volume


@pytest.fixture
def write_nifti() -> Write:
    def write(
        path: Path, volume: np.ndarray | None = None, affine: np.ndarray | None = None
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        volume = head_XYZ() if volume is None else volume
        affine = np.diag([*SPACING, 1.0]) if affine is None else affine
        nibabel.save(nibabel.Nifti1Image(volume, affine), path)
        return path

    return write


@pytest.fixture
def write_series() -> Write:
    """Axial slices of `head_XYZ`; `change(number, dataset)` spoils one, or drops it with False."""

    def write(folder: Path, change: Callable[[int, pydicom.Dataset], object] | None = None) -> Path:
        folder.mkdir(parents=True)
        series = generate_uid()
        volume = head_XYZ()[::-1, ::-1]  # rows and columns of DICOM grow to the left and the back
        for number in range(volume.shape[2]):
            dataset = _slice(volume[:, :, number].T, number, series)
            if change is None or change(number, dataset) is not False:
                # Names in another order than places.
                dataset.save_as(
                    folder / f"IM{(number * 7) % 100:03d}.dcm", enforce_file_format=True
                )
        return folder

    return write


def _slice(values_RC: np.ndarray, number: int, series: str) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID = PATIENT, "4711"
    dataset.SeriesInstanceUID = series
    dataset.Rows, dataset.Columns = values_RC.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -24
    dataset.PixelData = (values_RC + 24).astype("<i2").tobytes()
    dataset.PixelSpacing = [SPACING[1], SPACING[0]]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0, 0, SPACING[2] * number]
    return dataset
