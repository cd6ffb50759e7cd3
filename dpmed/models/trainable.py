"""Which parameters are trained: all, the head, the last stage, norms and biases, or LoRA.

After the weights are loaded and before anything looks at `requires_grad` (the clipper, the
optimizer). Fewer trained parameters mean less noise in total and a cheaper step; frozen ones cost
no gradient. Parameter names stay timm's: LoRA only adds names. Nothing here knows about privacy.

Source: norms and biases, Bu et al. 2022, DP-BiTFiT (arXiv 2210.00036); LoRA, Hu et al. 2021
(arXiv 2106.09685), under DP in Yu et al. 2021 (arXiv 2110.06500).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dpmed.errors import UserError, did_you_mean

TRAINABLE_CHOICES = ("full", "head", "last_stage", "norm_and_bias", "lora")


@dataclass(frozen=True, kw_only=True)
class TrainableParameters:
    """What was chosen, and how many numbers it trains; for the banner, run.json and report."""

    choice: str
    num_parameters: int
    num_trainable: int

    def sentence(self) -> str:
        """One line for the start banner."""
        share = self.num_trainable / self.num_parameters
        return f"{self.choice}: {self.num_trainable:,} of {self.num_parameters:,} ({share:.1%})"


def select_trainable(
    model: Any, *, trainable: str, lora_rank: int = 8, seed: int = 0
) -> TrainableParameters:
    """Freeze everything else, in place; the classifier is always trained.

    Args:
        model: timm's model, or one of volumes built from it, on any device.
        trainable: `full`; `head` (the classifier); `last_stage` (with everything after it);
            `norm_and_bias` (every vector: biases, norms, layer scale); `lora` (low-rank updates
            of both matrices of every block).
        lora_rank: r of the low-rank updates; only for `lora`.
        seed: of LoRA's random half; torch's global generator is left as it was.

    Raises:
        UserError: an unknown choice, or a rank that is not positive.
    """
    if trainable not in TRAINABLE_CHOICES:
        raise UserError(
            f"model.trainable={trainable!r} is not known; allowed: "
            f"{', '.join(TRAINABLE_CHOICES)}.{did_you_mean(trainable, TRAINABLE_CHOICES)}"
        )
    model.requires_grad_(trainable == "full")
    if trainable == "last_stage":
        for part in (model.stages[-1], model.norm_pre, model.head):
            part.requires_grad_(True)
    elif trainable == "norm_and_bias":
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.dim() == 1)
    elif trainable == "lora":
        add_lora(model, rank=lora_rank, seed=seed)
    model.get_classifier().requires_grad_(True)
    return TrainableParameters(
        choice=trainable,
        num_parameters=sum(p.numel() for p in model.parameters()),
        num_trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def add_lora(model: nn.Module, *, rank: int, seed: int = 0) -> None:
    """Give every `mlp.fc1` and `mlp.fc2` a trained low-rank update that starts at zero, in place.

    Raises:
        UserError: a rank that is not positive, or no such layer.
    """
    if rank < 1:
        raise UserError(f"model.lora_rank={rank} must be at least 1; 8 is a usual choice.")
    blocks = [m for m in model.modules() if hasattr(m, "fc1") and hasattr(m, "fc2")]
    if not blocks:
        raise UserError("model.trainable=lora needs blocks with mlp.fc1 and mlp.fc2; none found.")
    generator = torch.Generator().manual_seed(seed)
    for block in blocks:
        for name in ("fc1", "fc2"):
            setattr(block, name, LowRankUpdate(getattr(block, name), rank, generator))


def merge_lora(model: nn.Module) -> None:
    """Add every low-rank update to its weight and drop it, in place: plain timm again."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LowRankUpdate):
                setattr(parent, name, child.merged())


class LowRankUpdate(nn.Module):
    """y = W x + b + up(down(x)), W and b frozen; for nn.Linear and 1×1 nn.Conv2d.

    `weight` and `bias` are the layer's own, under their own names; `down` (rank × inputs) is random
    and `up` (outputs × rank) is zero at first. The usual factor α / r is 1.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        num_out, num_in = layer.weight.shape[:2]
        self.is_conv = isinstance(layer, nn.Conv2d)
        with torch.random.fork_rng(devices=[]):
            # Overwritten below; drawing it must not move the global generator.
            self.down, self.up = self._product(num_in, rank), self._product(rank, num_out)
        bound = 1.0 / math.sqrt(num_in)
        with torch.no_grad():
            start = torch.rand(rank, num_in, generator=generator).mul_(2 * bound).sub_(bound)
            self.down.weight.copy_(start.view_as(self.down.weight))
            self.up.weight.zero_()
        self.to(layer.weight.device, layer.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output plus the update's, in the layer's own layout."""
        product = nn.functional.conv2d if self.is_conv else nn.functional.linear
        return product(x, self.weight, self.bias) + self.up(self.down(x))

    def merged(self) -> nn.Module:
        """The layer with the update inside its weight."""
        num_out, num_in = self.weight.shape[:2]
        layer = self._product(num_in, num_out, bias=self.bias is not None)
        layer.weight, layer.bias = self.weight, self.bias
        with torch.no_grad():
            update = self.up.weight.flatten(1) @ self.down.weight.flatten(1)
            layer.weight += update.view_as(layer.weight)
        return layer

    def _product(self, num_in: int, num_out: int, *, bias: bool = False) -> nn.Linear | nn.Conv2d:
        if self.is_conv:
            return nn.Conv2d(num_in, num_out, kernel_size=1, bias=bias)
        return nn.Linear(num_in, num_out, bias=bias)
