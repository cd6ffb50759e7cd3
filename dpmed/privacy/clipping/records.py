"""The two ways in which a layer's per-unit gradients are kept until the norms are known.

An `Instance` holds the gradients themselves. A `Gram` holds activations a and output gradients g,
from which |gᵢᵀ aᵢ|² = ⟨aᵢ aᵢᵀ, gᵢ gᵢᵀ⟩ follows without forming gᵢᵀ aᵢ. Both give a unit's squared
norm and, later, the weighted sum over units. `gram_is_cheaper` chooses between them by cost.

Legend of shape suffixes: B units, T positions, D inputs, P outputs, N entries of a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

# Flops that the machine does while it moves one byte: what decides between the two forms. Measured
# with matrix products and copies of a layer's size; about 15 on two AVX-512 cores, 60–130 on H200.
FLOPS_PER_BYTE = {"cpu": 15.0, "cuda": 80.0}

# Entries summed in one go in float32; sums of the partial sums are in float64. One pass over
# millions of entries would lose 4e-5 of the norm.
NORM_CHUNK = 1024

Layout = Callable[[Tensor], Tensor]


@dataclass
class Instance:
    """Gradients of one parameter, one a unit: [B, *parameter.shape]."""

    parameter: nn.Parameter
    grads_BN: Tensor
    squares_B: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.squares_B = squared_norms(self.grads_BN)

    def parameters(self) -> list[nn.Parameter]:
        """What it holds gradients of."""
        return [self.parameter]

    def instances(self) -> Iterator[Instance]:
        """Itself: it holds the gradients already."""
        yield self

    def weighted_sums(self, factors_B: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """The parameter and Σ_b c_b G_b."""
        grads_BN = self.grads_BN.reshape(len(self.grads_BN), -1)
        total_N = factors_B.to(grads_BN.dtype) @ grads_BN
        yield self.parameter, total_N.view(self.parameter.shape)

    def drop_units(self, keep_B: Tensor) -> None:
        """Set to zero what belongs to units that must not contribute."""
        keep = keep_B.view(-1, *[1] * (self.grads_BN.dim() - 1))
        self.grads_BN = torch.where(keep, self.grads_BN, torch.zeros_like(self.grads_BN))


@dataclass
class Gram:
    """A weight [P, D] (and its bias [P]) through a [B, T, D] and g [B, T, P].

    `layout` turns gradients [..., P, D] into [..., *weight.shape].
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    inputs_BTD: Tensor
    grads_BTP: Tensor
    layout: Layout
    squares_B: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.squares_B = gram_squared_norms(
            self.inputs_BTD, self.grads_BTP, with_bias=self.bias is not None
        )

    def parameters(self) -> list[nn.Parameter]:
        """What it holds gradients of."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def instances(self) -> Iterator[Instance]:
        """The same gradients, formed."""
        yield Instance(self.weight, self.layout(self.grads_BTP.transpose(1, 2) @ self.inputs_BTD))
        if self.bias is not None:
            yield Instance(self.bias, self.grads_BTP.sum(1))

    def weighted_sums(self, factors_B: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """The weight and Σ_b c_b gᵀa; the bias and Σ_b c_b Σ_t g: one ordinary product."""
        scaled_BTP = self.grads_BTP * factors_B.to(self.grads_BTP.dtype).view(-1, 1, 1)
        scaled_MP = scaled_BTP.flatten(0, 1)
        inputs_MD = self.inputs_BTD.flatten(0, 1)
        yield self.weight, self.layout(scaled_MP.t() @ inputs_MD)
        if self.bias is not None:
            yield self.bias, scaled_MP.sum(0)

    def drop_units(self, keep_B: Tensor) -> None:
        """Set to zero what belongs to units that must not contribute."""
        keep = keep_B.view(-1, 1, 1)
        self.grads_BTP = torch.where(keep, self.grads_BTP, torch.zeros_like(self.grads_BTP))
        self.inputs_BTD = torch.where(keep, self.inputs_BTD, torch.zeros_like(self.inputs_BTD))


Record = Instance | Gram


def squared_norms(grads_BN: Tensor) -> Tensor:
    """Squared Euclidean norms [B] of gradients [B, ...], in float64, summed in two stages."""
    flat_BN = grads_BN.reshape(len(grads_BN), -1)
    whole = flat_BN.shape[1] // NORM_CHUNK * NORM_CHUNK
    parts = torch.linalg.vector_norm(
        flat_BN[:, :whole].unflatten(1, (-1, NORM_CHUNK)), dim=2, dtype=norm_dtype(flat_BN)
    )
    rest = torch.linalg.vector_norm(flat_BN[:, whole:], dim=1, dtype=norm_dtype(flat_BN))
    return parts.double().square().sum(1) + rest.double().square()


def gram_squared_norms(inputs_BTD: Tensor, grads_BTP: Tensor, *, with_bias: bool) -> Tensor:
    """Squared norms [B] of gᵀa, in float64; with the bias's |Σ_t g|² where asked.

    The bias behaves as one more input that is 1 everywhere, hence a aᵀ + 1.
    """
    inputs_BTT = inputs_BTD @ inputs_BTD.transpose(1, 2)
    grads_BTT = grads_BTP @ grads_BTP.transpose(1, 2)
    if inputs_BTT.dtype == torch.bfloat16:
        inputs_BTT, grads_BTT = inputs_BTT.float(), grads_BTT.float()
    if with_bias:
        inputs_BTT += 1.0
    # Rounding can leave a gradient of zero slightly below zero; NaN passes through the clamp.
    return inputs_BTT.mul_(grads_BTT).sum((1, 2)).double().clamp(min=0.0)


def norm_dtype(tensor: Tensor) -> torch.dtype:
    """float32 at least: squares in bf16 would lose the norm."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def gram_is_cheaper(
    *, num_positions: int, num_inputs: int, num_outputs: int, dtype: torch.dtype, device: str
) -> bool:
    """Whether Gram costs less than keeping instances, per unit.

    Gram adds 2T²(P + D) flops. An instance replaces the weight gradient's product, and moves its
    P·D entries three times more: written, read for the norm, read for the sum.

    Source: docs/clipping.md, "When Gram is chosen".
    """
    extra_flops = 2 * num_positions**2 * (num_inputs + num_outputs)
    moved_bytes = 3 * dtype.itemsize * num_inputs * num_outputs
    return extra_flops <= moved_bytes * FLOPS_PER_BYTE.get(device, 15.0)
