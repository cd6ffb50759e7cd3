"""The private optimizer: Opacus' DPOptimizer fed by the clipper, with noise from a secret key.

Between the clipper, which fills `p.summed_grad`, and the wrapped optimizer, which reads `p.grad`.
Scaling by the expected batch size, the step hook and the refusal to use a sum twice are Opacus'.
This module must not clip, choose a noise multiplier, or draw from torch's generators.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from opacus.optimizers import DPOptimizerFastGradientClipping
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
from torch.optim import Optimizer

NOISE_PURPOSE = "noise"
_STEP_KEY = "logical_step"


class NormalSource(Protocol):
    """What the optimizer needs of `dpmed.privacy.randomness.SecretStream`."""

    def normal(self, purpose: str, step: int, count: int) -> np.ndarray:
        """Standard normal numbers, float64 [count], a function of key, purpose and step."""
        ...


class SecretNoiseOptimizer(DPOptimizerFastGradientClipping):
    """One `step()` a logical step: summed clipped gradients, plus noise, over the batch size.

    p.grad = (summed_grad + noise_multiplier · max_grad_norm · N(0, 1)) / expected_batch_size

    Args:
        optimizer: any torch optimizer over the model's trainable parameters.
        noise_multiplier: standard deviation of the noise in units of `max_grad_norm`.
        max_grad_norm: the clipper's `sensitivity`.
        expected_batch_size: units a logical step is expected to draw; never the realised number.
        noise: the secret source; step t's noise is the same whenever step t is replayed.
        first_step: the number of the next logical step; `load_state_dict` restores it.

    Guarantee: every step adds fresh Gaussian noise to all trainable parameters, also to those that
    no unit touched and when the draw was empty. No step number is used twice by one object.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: int,
        noise: NormalSource,
        first_step: int = 0,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
            loss_reduction="mean",
        )
        self._noise = noise
        #: The number of the next logical step.
        self.logical_step = first_step

    def accumulate(self) -> None:
        """Take the clipper's sums as they are; an empty draw is a sum of zero."""
        for parameter in self.params:
            if parameter.summed_grad is None:
                parameter.summed_grad = torch.zeros_like(parameter)

    def add_noise(self) -> None:
        """Set every `p.grad` to the sum plus noise, and count the step."""
        parameters = self.params
        for parameter in parameters:
            _check_processed_flag(parameter.summed_grad)
        sizes = [parameter.numel() for parameter in parameters]
        # Float64 from the source; scaled before it is rounded to the parameters' dtype.
        normals = self._noise.normal(NOISE_PURPOSE, self.logical_step, sum(sizes))
        deviation = self.noise_multiplier * self.max_grad_norm
        noises = torch.from_numpy(np.asarray(normals) * deviation).split(sizes)
        for parameter, noise in zip(parameters, noises, strict=True):
            noise = noise.to(device=parameter.device, dtype=parameter.summed_grad.dtype)
            parameter.grad = parameter.summed_grad + noise.view_as(parameter)
            _mark_as_processed(parameter.summed_grad)
        self.logical_step += 1

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state, and the number of the next logical step."""
        return {**super().state_dict(), _STEP_KEY: self.logical_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both.

        Raises:
            KeyError: a state without the number of the next step; its noise could be used twice.
        """
        state = dict(state_dict)
        self.logical_step = state.pop(_STEP_KEY)
        super().load_state_dict(state)
