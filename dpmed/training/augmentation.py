"""Small random changes of the training images, on the whole batch at once and on its device.

Every view has parameters of its own, which follow from the seed, the logical step, the name of its
image and its place among the views of its unit: a resumed run repeats them, one image shown K times
is shown in K ways, and no patient's images depend on who else is in the data set. That last point
is part of the privacy proof, hence names and not row numbers. Validation and test images never come
here.

Shapes: B units with K views each, V = B·K, H and W pixels, P parameters a view.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

NUM_PARAMETERS = 6  # angle, two shifts, scale, contrast, flip


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far a view may be changed; each parameter is uniform in both directions.

    Args:
        rotation_degrees: at most so far around the centre.
        translation: at most this share of the side, in both axes.
        scale: at most this share larger or smaller, on a logarithmic scale.
        contrast: at most this share more or less, around the image's own mean.
        horizontal_flip: mirror half of the views; in a chest radiograph this puts the heart on the
            wrong side.
        seed: the run's public seed.
        keys_N: from `image_keys`, by row of the training table.
    """

    rotation_degrees: float
    translation: float
    scale: float
    contrast: float
    horizontal_flip: bool
    seed: int
    keys_N: NDArray[np.uint64]

    @property
    def changes_nothing(self) -> bool:
        """Whether every strength is zero."""
        return not (self._moves_pixels or self.contrast)

    @property
    def _moves_pixels(self) -> bool:
        return bool(self.rotation_degrees or self.translation or self.scale or self.horizontal_flip)

    def draw(self, *, step: int, rows_BK: NDArray[np.int64]) -> NDArray[np.float32]:
        """Parameters in [-1, 1) for each view, float32 (V, P).

        Args:
            step: the logical step.
            rows_BK: rows of the training table, one unit a line.
        """
        keys_V = self.keys_N[rows_BK.reshape(-1)]
        views_V = np.tile(np.arange(rows_BK.shape[1], dtype=np.uint64), len(rows_BK))
        words_V = _mixed(_mixed(_mixed(keys_V, self.seed), step), views_V)
        places_P = np.arange(NUM_PARAMETERS, dtype=np.uint64)
        words_VP = _mixed(words_V[:, None], places_P)
        return (2.0 * (words_VP >> np.uint64(11)) / 2.0**53 - 1.0).astype(np.float32)

    def apply(self, images_V1HW: Tensor, draws_VP: Tensor) -> Tensor:
        """The changed images, in [0, 1] like the given ones; what moves in from outside is black.

        Args:
            images_V1HW: floating point, square, in [0, 1]; or volumes (V, 1, D, H, W), cubes, whose
                slices are turned, shifted and mirrored alike, and scaled in all directions.
            draws_VP: from `draw`, on the same device.
        """
        if self._moves_pixels:
            matrices_V23 = self._matrices(draws_VP.to(images_V1HW.dtype))
            matrices = matrices_V23 if images_V1HW.ndim == 4 else _around_third_axis(matrices_V23)
            grid = F.affine_grid(matrices, list(images_V1HW.shape), align_corners=False)
            images_V1HW = F.grid_sample(images_V1HW, grid, align_corners=False)
        if self.contrast:
            dims = tuple(range(1, images_V1HW.ndim))
            factors_V111 = (1.0 + self.contrast * draws_VP[:, 4]).view(-1, *[1] * len(dims))
            means_V111 = images_V1HW.mean(dim=dims, keepdim=True)
            images_V1HW = means_V111 + factors_V111.to(images_V1HW.dtype) * (
                images_V1HW - means_V111
            )
        return images_V1HW.clamp(0.0, 1.0)

    def _matrices(self, draws_VP: Tensor) -> Tensor:
        """From output to input coordinates in [-1, 1], (V, 2, 3)."""
        angle_V = math.radians(self.rotation_degrees) * draws_VP[:, 0]
        shifts_V2 = 2.0 * self.translation * draws_VP[:, 1:3]  # the side is 2 long
        size_V = torch.exp(-math.log1p(self.scale) * draws_VP[:, 3])
        cos_V, sin_V = size_V * torch.cos(angle_V), size_V * torch.sin(angle_V)
        mirror_V = torch.ones_like(angle_V)
        if self.horizontal_flip:
            mirror_V = torch.where(draws_VP[:, 5] < 0.0, -mirror_V, mirror_V)
        rows_V = [
            torch.stack([mirror_V * cos_V, -sin_V, shifts_V2[:, 0]], dim=1),
            torch.stack([mirror_V * sin_V, cos_V, shifts_V2[:, 1]], dim=1),
        ]
        return torch.stack(rows_V, dim=1)


def _around_third_axis(matrices_V23: Tensor) -> Tensor:
    """The same change of every slice, and the same scale across slices, (V, 3, 4)."""
    matrices_V34 = matrices_V23.new_zeros(len(matrices_V23), 3, 4)
    matrices_V34[:, :2, :2], matrices_V34[:, :2, 3] = matrices_V23[:, :, :2], matrices_V23[:, :, 2]
    matrices_V34[:, 2, 2] = matrices_V23[:, :, 1].norm(dim=1)
    return matrices_V34


def image_keys(images: Iterable[str]) -> NDArray[np.uint64]:
    """A number for each image from its own name alone."""
    words = [hashlib.blake2b(image.encode(), digest_size=8).digest() for image in images]
    return np.frombuffer(b"".join(words), dtype=np.uint64)


def _mixed(words: NDArray[np.uint64], other: int | NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Two numbers to one that looks random: a step of SplitMix64 (Steele et al. 2014).

    Public randomness only; noise and sampling use the secret stream. A numpy generator for each
    view takes a hundred times as long.
    """
    gamma = np.uint64(0x9E3779B97F4A7C15)
    others = np.atleast_1d(np.asarray(other, dtype=np.uint64))  # only arrays wrap around silently
    words = words ^ ((others + np.uint64(1)) * gamma)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
