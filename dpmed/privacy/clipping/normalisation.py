"""Rules for LayerNorm (last dimension or channels) and GroupNorm: the affine part is recorded.

The input gradient comes from the library's own kernel. With x̂ = (x − mean) · rstd, a row's
gradients are Σ_t g · x̂ for the weight and Σ_t g for the bias.

Legend: R rows, T positions, C channels (or the normalised shape).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from dpmed.privacy.clipping.layer import RecordingLayer, trainable


class RecordingLayerNorm(RecordingLayer):
    """nn.LayerNorm over the last dimensions."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    normalized_shape: tuple[int, ...]
    eps: float

    def record_forward(self, input: Tensor) -> Tensor:
        """x̂ · weight + bias."""
        return _LayerNorm.apply(input, self._dpmed_tape.anchor, self)


class RecordingChannelNorm(RecordingLayerNorm):
    """LayerNorm over dimension 1 of (R, C, H, W): timm's LayerNorm2d."""

    def record_forward(self, input: Tensor) -> Tensor:
        """Moves channels last and back; both are views of a channels_last tensor."""
        return super().record_forward(input.movedim(1, -1)).movedim(-1, 1)


class RecordingGroupNorm(RecordingLayer):
    """nn.GroupNorm on (R, C, ...)."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    num_groups: int
    eps: float

    def record_forward(self, input: Tensor) -> Tensor:
        """x̂ · weight + bias."""
        return _GroupNorm.apply(input, self._dpmed_tape.anchor, self)


class _LayerNorm(torch.autograd.Function):
    """LayerNorm whose backward gives the input's gradient and records the parameters'."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, anchor: Tensor, layer: RecordingLayerNorm) -> Tensor:
        weight, bias, shape = layer.weight, layer.bias, layer.normalized_shape
        input = input.to(torch.promote_types(input.dtype, weight.dtype))
        output, mean, rstd = torch.native_layer_norm(input, shape, weight, bias, layer.eps)
        ctx.save_for_backward(input, mean, rstd, weight)
        ctx.weight, ctx.bias, ctx.tape = trainable(weight), trainable(bias), layer._dpmed_tape
        ctx.shape = shape
        return output

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        input, mean, rstd, weight = ctx.saved_tensors
        rows_shape = (len(grads), -1, *ctx.shape)
        if ctx.bias is not None:
            ctx.tape.add_instance(ctx.bias, grads.reshape(rows_shape).sum(1))
        if ctx.weight is not None:
            scaled = (input - mean).mul_(rstd).mul_(grads)
            ctx.tape.add_instance(ctx.weight, scaled.reshape(rows_shape).sum(1))
        grads_input = None
        if ctx.needs_input_grad[0]:
            grads_input = torch.ops.aten.native_layer_norm_backward(
                grads, input, ctx.shape, mean, rstd, weight, None, [True, False, False]
            )[0]
        return grads_input, None, None


class _GroupNorm(torch.autograd.Function):
    """GroupNorm whose backward gives the input's gradient and records the parameters'."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, anchor: Tensor, layer: RecordingGroupNorm) -> Tensor:
        weight, bias, num_groups = layer.weight, layer.bias, layer.num_groups
        input = input.to(torch.promote_types(input.dtype, weight.dtype))
        num_rows, num_channels = input.shape[:2]
        num_positions = math.prod(input.shape[2:])
        ctx.sizes = (num_rows, num_channels, num_positions, num_groups)
        output, mean, rstd = torch.native_group_norm(
            input, weight, bias, num_rows, num_channels, num_positions, num_groups, layer.eps
        )
        ctx.save_for_backward(input, mean, rstd, weight)
        ctx.weight, ctx.bias, ctx.tape = trainable(weight), trainable(bias), layer._dpmed_tape
        return output

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        input, mean, rstd, weight = ctx.saved_tensors
        if ctx.bias is not None:
            ctx.tape.add_instance(ctx.bias, grads.flatten(2).sum(2))
        if ctx.weight is not None:
            num_rows, num_channels, num_positions, num_groups = ctx.sizes
            grouped = (num_rows, num_groups, num_channels // num_groups, num_positions)
            normed = input.reshape(grouped) - mean[..., None, None]
            normed = normed.mul_(rstd[..., None, None]).view(num_rows, num_channels, -1)
            ctx.tape.add_instance(ctx.weight, normed.mul_(grads.flatten(2)).sum(2))
        grads_input = None
        if ctx.needs_input_grad[0]:
            grads_input = torch.ops.aten.native_group_norm_backward(
                grads.contiguous(),
                input.contiguous(),
                mean,
                rstd,
                weight,
                *ctx.sizes,
                [True, False, False],
            )[0]
        return grads_input, None, None
