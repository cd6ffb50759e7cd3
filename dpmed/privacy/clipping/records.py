"""The forms in which per-unit gradients are kept until the norms are known.

`Instance` holds one parameter's gradients, one a unit. `Bundle` holds those of many small
parameters side by side. `Gram` holds activations a and output gradients g of a layer, from which
|gᵢᵀ aᵢ|² = ⟨aᵢ aᵢᵀ, gᵢ gᵢᵀ⟩ follows without forming gᵢᵀ aᵢ. Each gives the units' squared norms
and, later, the weighted sum over units. `TENSORS` names what of a record comes from the batch.
`gram_is_cheaper` compares the costs of the two forms.

Legend of shape suffixes: B units, T positions, M = B·T, D inputs, P outputs, N entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

# Flops that the machine does while it moves one byte: what decides between the two forms. About 15
# was measured on two AVX-512 cores, 60 to 130 on an H200.
FLOPS_PER_BYTE = {"cpu": 15.0, "cuda": 80.0}

# Entries summed in one go in float32; the sum of the partial sums is in float64. One pass over
# millions of entries would lose 4e-5 of the norm.
NORM_CHUNK = 1024

# By how many units in the last place the absolute sum of a Gram norm's terms may be off, as the
# terms, their sum, and the product that forms the clipped sum are rounded.
ROUNDINGS = 2.0

# Parameters of at most so many entries share one record: fewer, longer operations.
SMALL_NUMEL = 8192

Layout = Callable[[Tensor], Tensor]
Totals = Iterator[tuple[nn.Parameter, Tensor]]


class Instance:
    """Gradients of one parameter, one a unit: [B, *parameter.shape]."""

    TENSORS = ("grads_BN", "squares_B")

    def __init__(self, parameter: nn.Parameter, grads_BN: Tensor) -> None:
        self.parameter = parameter
        self.grads_BN = grads_BN

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What it holds gradients of."""
        return [self.parameter]

    @cached_property
    def squares_B(self) -> Tensor:
        """Squared norms [B], float64."""
        return squared_norms(self.grads_BN.flatten(1))

    def instances(self) -> Iterator[Instance]:
        """Itself: it holds the gradients already."""
        yield self

    def weighted_sums(self, factors_B: Tensor) -> Totals:
        """The parameter and Σ_b c_b G_b."""
        yield self.parameter, combine(factors_B, self.grads_BN.flatten(1)).view_as(self.parameter)

    def drop_units(self, keep_B: Tensor) -> None:
        """Set to zero what belongs to units that must not contribute."""
        self.grads_BN = _zero_unless(keep_B, self.grads_BN)


class Bundle:
    """Gradients of several small parameters, side by side: [B, ΣN]."""

    TENSORS = ("grads_BN", "squares_B")

    def __init__(self, instances: Sequence[Instance]) -> None:
        self.parameters = [instance.parameter for instance in instances]
        self.grads_BN = torch.cat([instance.grads_BN.flatten(1) for instance in instances], dim=1)

    @cached_property
    def squares_B(self) -> Tensor:
        """Squared norms [B] over all of them, float64."""
        return squared_norms(self.grads_BN)

    def instances(self) -> Iterator[Instance]:
        """The same gradients, one parameter at a time."""
        parts = self.grads_BN.split([parameter.numel() for parameter in self.parameters], dim=1)
        for parameter, part in zip(self.parameters, parts, strict=True):
            yield Instance(parameter, part.view(-1, *parameter.shape))

    def weighted_sums(self, factors_B: Tensor) -> Totals:
        """Each parameter and its Σ_b c_b G_b."""
        total_N = combine(factors_B, self.grads_BN)
        parts = total_N.split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            yield parameter, part.view_as(parameter)

    def drop_units(self, keep_B: Tensor) -> None:
        """Set to zero what belongs to units that must not contribute."""
        self.grads_BN = _zero_unless(keep_B, self.grads_BN)


class Gram:
    """A weight [P, D], and its bias [P], through a [B, T, D] and g [B, T, P].

    `layout` turns gradients [..., P, D] into [..., *weight.shape].
    """

    TENSORS = ("inputs_BTD", "grads_BTP", "squares_B")

    def __init__(
        self,
        weight: nn.Parameter,
        bias: nn.Parameter | None,
        inputs_BTD: Tensor,
        grads_BTP: Tensor,
        layout: Layout,
    ) -> None:
        self.weight, self.bias = weight, bias
        self.inputs_BTD, self.grads_BTP = inputs_BTD, grads_BTP
        self.layout = layout
        self.squares_B = gram_squared_norms(inputs_BTD, grads_BTP, with_bias=bias is not None)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What it holds gradients of."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def instances(self) -> Iterator[Instance]:
        """The same gradients, formed."""
        yield Instance(self.weight, self.layout(self.grads_BTP.transpose(1, 2) @ self.inputs_BTD))
        if self.bias is not None:
            yield Instance(self.bias, self.grads_BTP.sum(1))

    def weighted_sums(self, factors_B: Tensor) -> Totals:
        """The weight and Σ_b c_b gᵀa; the bias and Σ_b c_b Σ_t g: one ordinary product.

        The narrower of a and g is scaled.
        """
        num_positions = self.grads_BTP.shape[1]
        factors_M = factors_B.repeat_interleave(num_positions)
        inputs_MD, grads_MP = self.inputs_BTD.flatten(0, 1), self.grads_BTP.flatten(0, 1)
        if inputs_MD.shape[1] < grads_MP.shape[1]:
            parts = [wide_product(grads_MP.t(), part) for part in _scale_rows(inputs_MD, factors_M)]
        else:
            parts = [wide_product(p.t(), inputs_MD) for p in _scale_rows(grads_MP, factors_M)]
        yield self.weight, self.layout(sum(parts[1:], parts[0]))
        if self.bias is not None:
            yield self.bias, combine(factors_M, grads_MP)

    def drop_units(self, keep_B: Tensor) -> None:
        """Set to zero what belongs to units that must not contribute."""
        self.inputs_BTD = _zero_unless(keep_B, self.inputs_BTD)
        self.grads_BTP = _zero_unless(keep_B, self.grads_BTP)


Record = Instance | Bundle | Gram


def squared_norms(flat_BN: Tensor) -> Tensor:
    """Squared Euclidean norms [B] of [B, N], in float64, summed in two stages."""
    dtype = torch.promote_types(flat_BN.dtype, torch.float32)
    whole = flat_BN.shape[1] // NORM_CHUNK * NORM_CHUNK
    squares_B = torch.zeros(len(flat_BN), dtype=torch.float64, device=flat_BN.device)
    if whole:
        chunks = flat_BN[:, :whole].unflatten(1, (-1, NORM_CHUNK))
        squares_B += torch.linalg.vector_norm(chunks, dim=2, dtype=dtype).double().square().sum(1)
    if whole < flat_BN.shape[1]:
        rest = torch.linalg.vector_norm(flat_BN[:, whole:], dim=1, dtype=dtype)
        squares_B += rest.double().square()
    return squares_B


def gram_squared_norms(inputs_BTD: Tensor, grads_BTP: Tensor, *, with_bias: bool) -> Tensor:
    """Squared norms [B] of gᵀa, in float64, rounded upwards; with the bias's |Σ_t g|² where asked.

    The bias acts as one more input that is 1 everywhere, hence a aᵀ + 1.

    Guarantee: large terms that cancel (inputs with a common mean, gradients that add up to nothing)
    leave their rounding behind, which `ROUNDINGS` units in the last place of the terms' absolute
    sum cover. So a unit whose norm is known badly is clipped harder, never less.
    """
    inputs_BTT = wide_product(inputs_BTD, inputs_BTD.transpose(1, 2))
    grads_BTT = wide_product(grads_BTP, grads_BTP.transpose(1, 2))
    if with_bias:
        inputs_BTT += 1.0
    terms_BTT = inputs_BTT.mul_(grads_BTT)
    # Rounding can leave a gradient of zero slightly below zero; NaN passes through the clamp.
    squares_B = terms_BTT.sum((1, 2)).double().clamp(min=0.0)
    margin_B = terms_BTT.abs_().sum((1, 2)).double()
    return squares_B + ROUNDINGS * torch.finfo(terms_BTT.dtype).eps * margin_B


def combine(factors_B: Tensor, rows_BN: Tensor) -> Tensor:
    """Σ_b c_b · row_b, in float32 or wider."""
    if rows_BN.dtype != torch.bfloat16:
        return factors_B.to(rows_BN.dtype) @ rows_BN
    return wide_product(torch.stack(_two_parts(factors_B)), rows_BN).sum(0)


def wide_product(left: Tensor, right: Tensor) -> Tensor:
    """The product of two matrices, or of two batches of matrices, in float32 or wider.

    Rounded to bf16, a norm could be 0.4 % too low, and a sum over a batch would change by several
    per cent of the bound beside what one more unit adds to it.
    """
    if left.dtype != torch.bfloat16:
        return left @ right
    if left.is_cuda:
        product = torch.bmm if left.dim() == 3 else torch.mm
        return product(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


def gram_is_cheaper(
    *, num_positions: int, num_inputs: int, num_outputs: int, dtype: torch.dtype, device: str
) -> bool:
    """Whether Gram costs less than keeping instances, per unit.

    Gram adds 2T²(P + D) flops. An instance replaces the weight gradient's product, and moves its
    P·D entries three times: written, read for the norm, read for the sum.

    Source: docs/clipping.md, "When Gram is chosen".
    """
    extra_flops = 2 * num_positions**2 * (num_inputs + num_outputs)
    moved_bytes = 3 * dtype.itemsize * num_inputs * num_outputs
    return extra_flops <= moved_bytes * FLOPS_PER_BYTE.get(device, FLOPS_PER_BYTE["cpu"])


def _scale_rows(rows_MN: Tensor, factors_M: Tensor) -> list[Tensor]:
    """Rows times factors, as terms of a sum in the rows' dtype."""
    if rows_MN.dtype != torch.bfloat16:
        return [rows_MN * factors_M.to(rows_MN.dtype)[:, None]]
    return _two_parts(rows_MN * factors_M.float()[:, None])


def _two_parts(tensor: Tensor) -> list[Tensor]:
    """High + low in bf16: one rounding would scale a whole gradient by up to 0.4 %."""
    high = tensor.to(torch.bfloat16)
    return [high, (tensor - high).to(torch.bfloat16)]


def _zero_unless(keep_B: Tensor, tensor: Tensor) -> Tensor:
    keep = keep_B.view(-1, *[1] * (tensor.dim() - 1))
    return torch.where(keep, tensor, torch.zeros_like(tensor))
