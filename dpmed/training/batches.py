"""Turns the physical batches of each logical step into tensors.

The privacy sampler alone decides which units take part; this module looks their images up. It
stands between `privacy.sampling` and the Lightning module, and must never reorder, drop or repeat
a unit.

Shapes: B physical batch in units, K views a unit, V = B·K, H and W pixels, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpmed.data.cache.pages import read_rows
from dpmed.privacy.sampling import PhysicalBatch, PoissonSampler
from dpmed.training.augmentation import Augmentation


@dataclass(kw_only=True)  # not frozen: Lightning rewrites the tensors' dtype in place (64-true)
class TrainingBatch:
    """One physical batch, ready for the model; padded views have weight 0 and black images.

    Where images are augmented, `draws_VP` says how; the device does it.
    """

    images_V1HW: Tensor
    targets_VL: Tensor
    weights_V: Tensor
    step: int
    is_last: bool
    draws_VP: Tensor | None = None

    def to(self, device: torch.device, non_blocking: bool = False) -> TrainingBatch:
        """The same batch on another device."""
        draws_VP = self.draws_VP
        return TrainingBatch(
            images_V1HW=self.images_V1HW.to(device, non_blocking=non_blocking),
            targets_VL=self.targets_VL.to(device, non_blocking=non_blocking),
            weights_V=self.weights_V.to(device, non_blocking=non_blocking),
            step=self.step,
            is_last=self.is_last,
            draws_VP=None if draws_VP is None else draws_VP.to(device, non_blocking=non_blocking),
        )


class LogicalStepLoader:
    """Every physical batch from the first unfinished logical step to the last planned one.

    It keeps no position of its own: where to begin is asked for when iteration begins, after
    Lightning has restored the checkpoint, so that batches fetched ahead of an update never count.

    Args:
        sampler: decides who takes part in each step.
        images_NHW: uint8 pixels, memory-mapped or not; or features (N, D) in their place.
        image_rows: the image of each row of the training table.
        targets_NL: 1, 0 or NaN by row of the training table.
        num_steps: logical steps planned.
        completed_steps: tells how many logical steps are behind us.
        augmentation: draws how each view is changed; None leaves them as they are.
    """

    def __init__(
        self,
        *,
        sampler: PoissonSampler,
        images_NHW: NDArray[Any],
        image_rows: NDArray[np.int64],
        targets_NL: NDArray[np.float32],
        num_steps: int,
        completed_steps: Callable[[], int],
        augmentation: Augmentation | None = None,
    ) -> None:
        self.sampler = sampler
        self.images_NHW = images_NHW
        self.image_rows = image_rows
        self.targets_NL = targets_NL
        self.num_steps = num_steps
        self._completed_steps = completed_steps
        self._augmentation = augmentation

    def __iter__(self) -> Iterator[TrainingBatch]:
        for step in range(self._completed_steps(), self.num_steps):
            for batch in self.sampler.physical_batches(step):
                yield self._collate(batch)

    def _collate(self, batch: PhysicalBatch) -> TrainingBatch:
        rows_V = batch.rows_BK.reshape(-1)
        weights_V = batch.weights_BK.reshape(-1).astype(np.float32)
        real_V = weights_V > 0
        images_VHW = np.zeros((len(rows_V), *self.images_NHW.shape[1:]), self.images_NHW.dtype)
        images_VHW[real_V] = read_rows(self.images_NHW, self.image_rows[rows_V[real_V]])
        targets_VL = np.zeros((len(rows_V), self.targets_NL.shape[1]), dtype=np.float32)
        targets_VL[real_V] = self.targets_NL[rows_V[real_V]]
        draws_VP = None
        if self._augmentation is not None:
            drawn = self._augmentation.draw(step=batch.step, rows_BK=batch.rows_BK)
            draws_VP = torch.from_numpy(drawn)
        return TrainingBatch(
            images_V1HW=torch.from_numpy(images_VHW).unsqueeze(1),
            targets_VL=torch.from_numpy(targets_VL),
            weights_V=torch.from_numpy(weights_V),
            step=batch.step,
            is_last=batch.is_last,
            draws_VP=draws_VP,
        )
