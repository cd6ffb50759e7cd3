"""An exponential moving average of the weights over logical steps, evaluated beside the weights.

Averaging is post-processing of released iterates: it costs no privacy. It steadies noisy training
(De et al. 2022, arXiv 2204.13650, sec. 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Follows a model's trainable parameters.

    Args:
        model: its parameters as they are now are the start of the average.
        decay: weight of the past in [0, 1), reached after a warm-up: at step t it is
            min(decay, (1 + t) / (10 + t)), so that the start weights do not linger.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._average = {n: p.detach().clone() for n, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes the present weights into the average; once a logical step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(
            list(self._average.values()), list(self._parameters.values()), 1.0 - decay
        )
        self.num_updates += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model computes with the average inside the context, with its own weights after."""
        own = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._copy(self._average)
        try:
            yield
        finally:
            self._copy(own)

    def state_dict(self) -> dict[str, Tensor | int]:
        """The average and the number of updates."""
        return {**self._average, "": self.num_updates}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Goes on from a saved average."""
        self.num_updates = int(state[""])
        for name, average in self._average.items():
            average.copy_(torch.as_tensor(state[name]))

    @torch.no_grad()
    def _copy(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
