"""Optimizer and learning-rate schedule by name, counted in logical steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch.nn import Parameter
from torch.optim import Optimizer


def make_optimizer(
    parameters: Iterable[Parameter],
    *,
    name: str,
    learning_rate: float,
    weight_decay: float,
    momentum: float,
) -> Optimizer:
    """The torch optimizer that the noisy gradients are handed to."""
    if name == "sgd":
        return torch.optim.SGD(
            parameters, lr=learning_rate, momentum=momentum, weight_decay=weight_decay
        )
    if name == "nadam":
        return torch.optim.NAdam(parameters, lr=learning_rate, weight_decay=weight_decay)
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)


def learning_rate_factor(
    *, schedule: str, warmup_steps: int, num_steps: int
) -> Callable[[int], float]:
    """Logical step (from 0) -> factor in (0, 1]: linear warm-up, then constant or half a cosine."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        if schedule == "constant":
            return 1.0
        progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
        return 0.5 * (1.0 + math.cos(math.pi * progress))

    return factor
