"""A folder of DICOM slices to one volume: read, checked against one another, put in order.

A series that is not one whole, evenly spaced stack is refused with its reason; nothing is filled
in. Only elements that describe pixels and their place are read, so that no patient element is ever
in memory, in a warning or in an error.

Shapes: S slices, R rows, C columns.

Source: DICOM PS3.3, C.7.6.2 (image plane).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpmed.data.dicom import read_slice
from dpmed.data.dicom_grey import DicomError
from dpmed.data.volumes.preprocessing import MAX_VOXELS, RawVolume

PLACE_ELEMENTS = (
    "SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
)  # fmt: skip
_DIRECTION_TOLERANCE = 1e-3  # of a direction's cosines
_SPACING_TOLERANCE = 0.1  # of the usual distance of slices; scanners round positions
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One file: its values, where its first pixel lies, and which way its rows and columns run.

    Args:
        values_RC: in the unit of the modality.
        position: millimetres, left-posterior-superior positive.
        rows_and_columns: (2, 3), direction along a row and along a column.
        spacing: (2,), millimetres between rows and between columns.
        series: which series it belongs to; never shown.
    """

    values_RC: NDArray[np.float32]
    position: NDArray[np.float64]
    rows_and_columns: NDArray[np.float64]
    spacing: NDArray[np.float64]
    series: str


def read_series(files: Sequence[Path]) -> RawVolume:
    """The slices of one series as a volume, ordered by their positions.

    Args:
        files: every DICOM file of the folder.

    Raises:
        DicomError: a slice that cannot be read, several frames, series, sizes, orientations or
            pixel spacings, two slices in one place, missing slices, or a tilted stack.
    """
    if len(files) < 2:
        raise DicomError(f"it holds {len(files)} DICOM slices, and a volume needs at least 2")
    slices = [_read(file) for file in files]
    _check_alike(slices)
    step, order = _stacked(slices)
    first = slices[order[0]]
    voxels_CRS = np.stack([slices[place].values_RC.T for place in order], axis=-1)
    affine = np.eye(4)
    affine[:3, 0] = first.rows_and_columns[0] * first.spacing[1]
    affine[:3, 1] = first.rows_and_columns[1] * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    return RawVolume(voxels_XYZ=np.ascontiguousarray(voxels_CRS), affine=_LPS_TO_RAS @ affine)


def _read(file: Path) -> Slice:
    try:
        values, dataset = read_slice(file, PLACE_ELEMENTS)
    except DicomError as error:
        raise DicomError(f"its slice {file.name}: {error}") from None
    try:
        place = {name: np.array(dataset[name].value, np.float64) for name in PLACE_ELEMENTS[1:]}
    except (KeyError, TypeError, ValueError):
        place = {}
    sizes = [place[name].size if name in place else 0 for name in PLACE_ELEMENTS[1:]]
    if sizes != [3, 6, 2] or not all(np.isfinite(value).all() for value in place.values()):
        raise DicomError(
            f"its slice {file.name} does not say where it lies ({', '.join(PLACE_ELEMENTS[1:])})"
        )
    return Slice(
        values_RC=values,
        position=place["ImagePositionPatient"],
        rows_and_columns=place["ImageOrientationPatient"].reshape(2, 3),
        spacing=place["PixelSpacing"],
        series=str(dataset.get("SeriesInstanceUID", "")),
    )


def _check_alike(slices: list[Slice]) -> None:
    first = slices[0]
    num_series = len({each.series for each in slices})
    if num_series > 1:
        raise DicomError(f"it holds slices of {num_series} series; give each its own folder")
    shapes = sorted({each.values_RC.shape for each in slices})
    if len(shapes) > 1:
        named = " and ".join(f"{rows}x{columns}" for rows, columns in shapes[:2])
        raise DicomError(f"its slices have different sizes ({named} pixels)")
    if first.values_RC.size * len(slices) > MAX_VOXELS:
        raise DicomError(f"it has more than {MAX_VOXELS:,} voxels")
    if any(
        np.abs(each.rows_and_columns - first.rows_and_columns).max() > _DIRECTION_TOLERANCE
        for each in slices
    ):
        raise DicomError("its slices have mixed orientations, as in a series with a scout image")
    if any(np.abs(each.spacing / first.spacing - 1).max() > 1e-3 for each in slices):
        raise DicomError("its slices have different pixel spacings")


def _stacked(slices: list[Slice]) -> tuple[NDArray[np.float64], list[int]]:
    """The vector from one slice to the next, and the slices in that order."""
    normal = np.cross(*slices[0].rows_and_columns)
    if not 0.9 < np.linalg.norm(normal) < 1.1:
        raise DicomError("the directions of its rows and columns are not at right angles")
    positions = np.array([each.position for each in slices])
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    gaps = np.diff(heights[order])
    usual = float(np.median(gaps))
    if not gaps.min() > 0.01 * max(usual, 1e-6):
        raise DicomError("it has two slices in one place")
    if (
        gaps.max() > (1 + _SPACING_TOLERANCE) * usual
        or gaps.min() < (1 - _SPACING_TOLERANCE) * usual
    ):
        raise DicomError(
            f"slices are missing or unevenly spaced: {gaps.min():.2f} to {gaps.max():.2f} mm "
            f"apart, {usual:.2f} mm as a rule"
        )
    last, first = positions[order[-1]], positions[order[0]]
    step = (last - first) / (len(slices) - 1)
    if np.linalg.norm(step - normal * (step @ normal)) > _SPACING_TOLERANCE * usual:
        raise DicomError("its stack is tilted (gantry tilt); resample it to right angles first")
    return step, [int(place) for place in order]
