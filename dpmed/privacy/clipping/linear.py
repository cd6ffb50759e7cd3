"""Rules for layers that are a matrix product over positions: Linear, 1×1 and patch convolutions.

All three bring their input to (R, T, D) and their output gradient to (R, T, P) and leave the rest
to the tape. Legend: R rows, C channels, H W height and width, T positions, D inputs, P outputs,
k kernel size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpmed.privacy.clipping.layer import RecordingLayer, compute_dtype, like_weight, trainable
from dpmed.privacy.clipping.records import Layout
from dpmed.privacy.clipping.tape import Tape


class RecordingLinear(RecordingLayer):
    """nn.Linear on inputs of any rank: (R, ..., D) to (R, ..., P)."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def record_forward(self, input: Tensor) -> Tensor:
        """Y = x Wᵀ + b."""
        matrix = self.weight.detach()
        return matrix_product(
            input, matrix, self.weight, self.bias, like_weight(matrix), self._dpmed_tape
        )


class RecordingPointwiseConv(RecordingLayer):
    """A convolution whose kernel is 1: a Linear over channels."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def record_forward(self, input: Tensor) -> Tensor:
        """The same numbers for either memory format; the output is channels_last."""
        input, matrix = input.movedim(1, -1), self.weight.detach().flatten(1)
        layout = like_weight(self.weight)
        output = matrix_product(input, matrix, self.weight, self.bias, layout, self._dpmed_tape)
        return output.movedim(-1, 1)


class RecordingPatchConv(RecordingLayer):
    """A convolution whose kernel equals its stride, without padding: a Linear over patches."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    kernel_size: tuple[int, ...]

    def record_forward(self, input: Tensor) -> Tensor:
        """Cuts patches once and keeps them, instead of the input and a second cut."""
        patches = cut_patches(input, self.kernel_size)
        # Patches hold (k..., C); the weight holds (P, C, k...).
        matrix = self.weight.detach().movedim(1, -1).flatten(1)
        layout = _patch_layout(self.weight)
        output = matrix_product(patches, matrix, self.weight, self.bias, layout, self._dpmed_tape)
        return output.movedim(-1, 1)


def matrix_product(
    input: Tensor,
    matrix: Tensor,
    weight: nn.Parameter,
    bias: nn.Parameter | None,
    layout: Layout,
    tape: Tape,
) -> Tensor:
    """X Mᵀ + b over the last dimension, recorded; `matrix` [P, D] holds the weight's entries."""
    return _MatrixProduct.apply(input, tape.anchor, matrix, (weight, bias), layout, tape)


class _MatrixProduct(torch.autograd.Function):
    """y = x Wᵀ + b whose backward gives the input's gradient and records the parameters'."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        anchor: Tensor,
        matrix: Tensor,
        parameters: tuple[nn.Parameter, nn.Parameter | None],
        layout: Layout,
        tape: Tape,
    ) -> Tensor:
        weight, bias = parameters
        dtype = compute_dtype(input)
        input, matrix = input.to(dtype), matrix.to(dtype)
        ctx.save_for_backward(input if weight.requires_grad else None, matrix)
        ctx.weight, ctx.bias, ctx.layout, ctx.tape = (
            trainable(weight),
            trainable(bias),
            layout,
            tape,
        )
        return F.linear(input, matrix, None if bias is None else bias.to(dtype))

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs, matrix = ctx.saved_tensors
        # Pooling hands down expanded views, for which products fall off their fast path.
        grads = grads.contiguous()
        grads_RTP = _rows(grads)
        ctx.tape.add_product(
            ctx.weight,
            ctx.bias,
            None if inputs is None else _rows(inputs),
            grads_RTP,
            ctx.layout,
        )
        grads_input = grads @ matrix if ctx.needs_input_grad[0] else None
        return grads_input, None, None, None, None, None


def cut_patches(input: Tensor, kernel_size: tuple[int, ...]) -> Tensor:
    """(R, C, H, W) to (R, H//k, W//k, k·k·C) for 2-D, the like for 1-D and 3-D; remainders go."""
    num_dims = len(kernel_size)
    for dim, size in enumerate(kernel_size):
        input = input.narrow(2 + dim, 0, input.shape[2 + dim] // size * size)
    patches = input.movedim(1, -1)
    for dim, size in reversed(list(enumerate(kernel_size))):
        patches = patches.unflatten(1 + dim, (-1, size))
    order = [0, *range(1, 2 * num_dims, 2), *range(2, 2 * num_dims + 1, 2), 2 * num_dims + 1]
    return patches.permute(order).flatten(1 + num_dims)


def _rows(tensor: Tensor) -> Tensor:
    """(R, ..., D) as (R, T, D)."""
    if tensor.dim() == 2:
        return tensor.unsqueeze(1)
    return tensor.flatten(1, -2)


def _patch_layout(weight: Tensor) -> Layout:
    """From (..., P, k·k·C) to (..., P, C, k, k)."""
    num_out, num_in, *kernel = weight.shape

    def layout(grads: Tensor) -> Tensor:
        grads = grads.reshape(*grads.shape[:-2], num_out, *kernel, num_in)
        return grads.movedim(-1, -1 - len(kernel))

    return layout
