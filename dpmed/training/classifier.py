"""The Lightning module: sums clipped gradients over a logical step, then takes one optimizer step.

Manual optimisation, because a logical step is not a batch: noise is added, the accountant advances
and the learning rate moves once a logical step, after its last physical batch. The privacy
mathematics is in `dpmed.privacy`; this file only calls it in the right order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dpmed.privacy.clipping.clipper import Clipper
from dpmed.training.augmentation import Augmentation
from dpmed.training.averaging import WeightAverage
from dpmed.training.batches import TrainingBatch
from dpmed.training.loss import per_view_loss


class PlainGradientSum:
    """The non-private twin of a clipper: ordinary gradients, summed over the logical step."""

    def __init__(self, model: nn.Module, *, expected_batch_size: int) -> None:
        self.module = model
        self.expected_batch_size = expected_batch_size

    def backward(self, losses_V: Tensor, weights_V: Tensor) -> None:
        """Adds this batch's share of the mean gradient to `p.grad`."""
        ((losses_V * weights_V).sum() / self.expected_batch_size).backward()


class Classifier(L.LightningModule):
    """Trains one model by logical steps.

    Args:
        model: maps images (V, 1, H, W) in [0, 1] to logits (V, L); the only registered submodule.
        gradient_sum: a clipper, or `PlainGradientSum` without privacy.
        optimizer: built over the same parameters (`SecretNoiseOptimizer` when private).
        learning_rate_factor: logical step -> factor on the base learning rate.
        before_update: called with the logical step before the update that spends it (the ledger).
        epsilon_after: number of completed steps -> epsilon, from steps alone.
        pos_weight_L: literal weights of positives.
        average: follows the weights, once a logical step.
        augmentation: changes the training views as their batch says.
        log_nonprivate_side_outputs: log training loss, clip fraction and realised batch size.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        gradient_sum: Clipper | PlainGradientSum,
        optimizer: Optimizer,
        learning_rate_factor: Callable[[int], float],
        before_update: Callable[[int], None],
        epsilon_after: Callable[[int], float],
        pos_weight_L: Tensor | None,
        average: WeightAverage | None,
        augmentation: Augmentation | None = None,
        log_nonprivate_side_outputs: bool,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        # A plain attribute of a plain object: its module wraps `model`, whose weights must not
        # be registered (and saved) twice.
        self._gradient_sum = [gradient_sum]
        self._optimizer = optimizer
        self._learning_rate_factor = learning_rate_factor
        self._before_update = before_update
        self.epsilon_after = epsilon_after
        self._pos_weight_L = pos_weight_L
        self.average = average
        self._augmentation = augmentation
        self._log_side_outputs = log_nonprivate_side_outputs
        self._side_outputs: dict[str, float] = {}
        self.completed_steps = 0

    @property
    def _dtype_of_weights(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def forward(self, images_V1HW: Tensor) -> Tensor:
        """Logits of uint8 or float images."""
        return self.model(scaled(images_V1HW, self._dtype_of_weights))

    def configure_optimizers(self) -> Any:
        """The optimizer as given, and one schedule step a logical step."""
        return [self._optimizer], [LambdaLR(self._optimizer, self._learning_rate_factor)]

    def transfer_batch_to_device(
        self, batch: TrainingBatch, device: torch.device, dataloader_idx: int
    ) -> TrainingBatch:
        """Moves a physical batch; its step and flag stay on the host."""
        return batch.to(device, non_blocking=True)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        """One physical batch; the last one of a logical step also updates the weights."""
        gradient_sum = self._gradient_sum[0]
        images_V1HW = scaled(batch.images_V1HW, self._dtype_of_weights)
        if self._augmentation is not None:
            assert batch.draws_VP is not None
            images_V1HW = self._augmentation.apply(images_V1HW, batch.draws_VP)
        logits_VL = gradient_sum.module(images_V1HW)
        losses_V = per_view_loss(logits_VL, batch.targets_VL, pos_weight_L=self._pos_weight_L)
        statistics = gradient_sum.backward(losses_V, batch.weights_V)
        if self._log_side_outputs:
            self._collect_side_outputs(losses_V.detach(), batch.weights_V, statistics)
        if batch.is_last:
            assert batch.step == self.completed_steps, (batch.step, self.completed_steps)
            self._update(batch.step)

    def _update(self, step: int) -> None:
        optimizer = cast(LightningOptimizer, self.optimizers())
        scheduler = cast(LambdaLR, self.lr_schedulers())
        learning_rate = float(optimizer.param_groups[0]["lr"])
        self._before_update(step)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if self.average is not None:
            self.average.update()
        self.completed_steps = step + 1
        self._log(learning_rate)

    def _log(self, learning_rate: float) -> None:
        """One entry a logical step. Lightning's own logging counts physical batches, whose number
        tells how many patients were drawn.
        """
        values = {
            "learning_rate": learning_rate,
            "epsilon": self.epsilon_after(self.completed_steps),
        }
        values |= {f"nonprivate/{name}": value for name, value in self._side_outputs.items()}
        self._side_outputs = {}
        for logger in self.loggers:
            logger.log_metrics(values, step=self.completed_steps)

    def _collect_side_outputs(self, losses_V: Tensor, weights_V: Tensor, statistics: Any) -> None:
        outputs = {
            "training_loss_sum": float((losses_V * weights_V).sum()),
            "realised_batch_size": float(weights_V.sum()),
        }
        if statistics is not None:
            outputs["num_nonfinite"] = float(statistics.num_nonfinite)
        for name, value in outputs.items():
            self._side_outputs[name] = self._side_outputs.get(name, 0.0) + value


def scaled(images_V1HW: Tensor, dtype: torch.dtype) -> Tensor:
    """Pixels in [0, 1] in the model's dtype; uint8 input is divided by 255."""
    if images_V1HW.dtype == torch.uint8:
        return images_V1HW.to(dtype).div_(255)
    return images_V1HW.to(dtype)
