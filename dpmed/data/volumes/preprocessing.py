"""What is done to one volume between its file and the model: a frozen setting and its function.

MONAI turns, resamples, scales and resizes. Every step looks at that volume alone: statistics over
volumes would be a query to private data. The result goes into the array cache.

Shapes: X Y Z voxels along the axes of the file, D H W those of the result.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    Orientation,
    Resize,
    ResizeWithPadOrCrop,
    ScaleIntensityRange,
    Spacing,
)
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from dpmed.errors import UserError

PREPROCESSING_VERSION = 1  # raise it when the same volume would give other voxels
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 512
MAX_VOXELS = 1_000_000_000  # a whole-body CT has some 500 million; more is a broken header
_DIRECTIONS = ({"L", "R"}, {"A", "P"}, {"S", "I"})
_RAS_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))  # the ends of the axes of an affine


@dataclass(frozen=True, kw_only=True)
class RawVolume:
    """A volume as its file holds it.

    Args:
        voxels_XYZ: float32, in the file's own unit (HU for CT).
        affine: float64 (4, 4), voxel index to millimetres, right-anterior-superior positive;
            None where the file says nothing of positions.
    """

    voxels_XYZ: NDArray[np.float32]
    affine: NDArray[np.float64] | None


@dataclass(frozen=True, kw_only=True)
class VolumePreprocessing:
    """The steps from a file's voxels to a uint8 cube.

    Args:
        image_size: side of the cube in voxels.
        keep_aspect_ratio: fit the volume into the cube and fill the rest with black; otherwise
            stretch each axis.
        orientation: directions in which the three axes of the turned volume grow, such as "RAS".
        spacing_mm: resample to this distance of voxels, for the three turned axes; None keeps it.
        intensity_range: the values that become black and white; None is the volume's own range.
        mask_depth: for masks: each inner voxel becomes its distance to the nearest outer one, in
            voxels before resizing, white from this distance on. None keeps the values.

    Raises:
        UserError: a value that is not allowed.
    """

    image_size: int
    keep_aspect_ratio: bool = False
    orientation: str = "RAS"
    spacing_mm: tuple[float, float, float] | None = None
    intensity_range: tuple[float, float] | None = None
    mask_depth: float | None = None

    def __post_init__(self) -> None:
        if not MIN_IMAGE_SIZE <= self.image_size <= MAX_IMAGE_SIZE:
            raise UserError(
                f"image_size={self.image_size} must be from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} "
                "for volumes."
            )
        axes = [axis for axis in _DIRECTIONS if len(axis & set(self.orientation)) == 1]
        if len(self.orientation) != 3 or len(axes) != 3:
            raise UserError(
                f"orientation={self.orientation!r} must name one direction of each axis: L or R, "
                "A or P, S or I, for example RAS."
            )

    def describe(self) -> dict[str, Any]:
        """The settings as plain values, for the data sheet and the key of the cache."""
        return asdict(self)


def preprocess_volume(raw: RawVolume, preprocessing: VolumePreprocessing) -> NDArray[np.uint8]:
    """A volume as uint8 (D, H, W), D = H = W = image_size; D counts along the third turned axis.

    A file without positions is neither turned nor resampled; its axes are (D, H, W) as stored.

    Raises:
        ValueError: voxels that are not finite, or none at all; says so in a clause.
    """
    voxels = raw.voxels_XYZ
    if not voxels.size:
        raise ValueError("it holds no voxels")
    if not np.isfinite(voxels).all():
        raise ValueError("it holds values that are not finite")
    affine = np.eye(4) if raw.affine is None else raw.affine
    volume = MetaTensor(torch.from_numpy(voxels)[None], affine=torch.from_numpy(affine))
    turned = Compose(_turning(preprocessing) if raw.affine is not None else [])(volume)
    scaled = Compose([_scaling(turned, preprocessing)])(turned)
    if preprocessing.mask_depth is not None:
        depth = distance_to_outside(np.asarray(scaled[0]) > 0.5) / preprocessing.mask_depth
        scaled = torch.from_numpy(np.minimum(depth, 1.0).astype(np.float32))[None]
    cube = np.asarray(Compose(_resizing(tuple(scaled.shape[1:]), preprocessing))(scaled)[0])
    grey = np.clip(np.rint(cube * 255.0), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(grey if raw.affine is None else grey.transpose(2, 1, 0))


def distance_to_outside(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of each voxel of a mask to the nearest voxel that is not in it, 0 outside, in voxels.

    What lies beyond the volume is outside. Only the box around the mask is searched: a gland fills
    a twentieth of its volume.
    """
    distance = np.zeros(mask.shape)
    if mask.any():
        places = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        box = tuple(slice(place[0], place[-1] + 1) for place in places)
        inside = distance_transform_edt(np.pad(mask[box], 1))
        distance[box] = inside[1:-1, 1:-1, 1:-1]
    return distance


def _turning(preprocessing: VolumePreprocessing) -> list[Any]:
    turning: list[Any] = [Orientation(axcodes=preprocessing.orientation, labels=_RAS_LABELS)]
    if preprocessing.spacing_mm is not None:
        turning.append(Spacing(pixdim=preprocessing.spacing_mm, mode="bilinear"))
    return turning


def _scaling(volume: torch.Tensor, preprocessing: VolumePreprocessing) -> Any:
    low, high = preprocessing.intensity_range or (float(volume.min()), float(volume.max()))
    if high <= low:  # one flat value has no contrast to stretch
        low, high = low - 1.0, low
    return ScaleIntensityRange(a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True)


def _resizing(shape: tuple[int, ...], preprocessing: VolumePreprocessing) -> list[Any]:
    """Area averaging where every axis shrinks, so that thin structures stay; else trilinear."""
    size = preprocessing.image_size
    if preprocessing.keep_aspect_ratio:
        scale = size / max(shape)
        target = tuple(max(1, round(side * scale)) for side in shape)
    else:
        target = (size, size, size)
    shrinks = all(new <= old for new, old in zip(target, shape, strict=True))
    mode = "area" if shrinks else "trilinear"
    return [
        Resize(spatial_size=target, mode=mode),
        ResizeWithPadOrCrop(spatial_size=(size, size, size)),
    ]
