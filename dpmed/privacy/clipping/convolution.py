"""Rules for convolutions in 1, 2 and 3 dimensions: depthwise, grouped, strided, dilated.

Legend: R rows, C channels, G groups, T output positions, D inputs of one output, P outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpmed.privacy.clipping.depthwise import depthwise_weight_grads
from dpmed.privacy.clipping.layer import RecordingLayer, compute_dtype, trainable

# Unfolded windows of a few rows at a time: bytes that fit a cache better than a whole batch.
UNFOLD_BYTES = 32 * 2**20


class RecordingConv(RecordingLayer):
    """nn.Conv1d, Conv2d, Conv3d with zero padding, any stride, dilation and groups."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def record_forward(self, input: Tensor) -> Tensor:
        """The library's convolution, recorded."""
        return _Convolution.apply(input, self._dpmed_tape.anchor, self)


class _Convolution(torch.autograd.Function):
    """A convolution whose backward gives the input's gradient and records the parameters'."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        anchor: Tensor,
        layer: RecordingConv,
    ) -> Tensor:
        weight, bias = layer.weight, layer.bias
        dtype = compute_dtype(input)
        input, kernel = input.to(dtype), weight.to(dtype)
        ctx.save_for_backward(input, kernel)
        ctx.weight, ctx.bias, ctx.tape = trainable(weight), trainable(bias), layer._dpmed_tape
        ctx.stride, ctx.dilation, ctx.groups = layer.stride, layer.dilation, layer.groups
        ctx.padding = symmetric_padding(layer)
        return torch.convolution(
            input,
            kernel,
            None if bias is None else bias.to(dtype),
            ctx.stride,
            ctx.padding,
            ctx.dilation,
            False,
            [0] * len(ctx.stride),
            ctx.groups,
        )

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        input, kernel = ctx.saved_tensors
        if ctx.bias is not None:
            ctx.tape.add_instance(ctx.bias, grads.flatten(2).sum(2))
        if ctx.weight is not None:
            ctx.tape.add_instance(ctx.weight, _weight_grads(ctx, input, kernel, grads))
        grads_input = None
        if ctx.needs_input_grad[0]:
            grads_input = torch.ops.aten.convolution_backward(
                grads,
                input,
                kernel,
                None,
                ctx.stride,
                ctx.padding,
                ctx.dilation,
                False,
                [0] * len(ctx.stride),
                ctx.groups,
                [True, False, False],
            )[0]
        return grads_input, None, None


def _weight_grads(ctx: Any, input: Tensor, kernel: Tensor, grads: Tensor) -> Tensor:
    """Weight gradients [R, *weight.shape]."""
    is_depthwise = ctx.groups == kernel.shape[0] == input.shape[1]
    if is_depthwise and kernel.dim() == 4 and set(ctx.stride) == {1}:
        weight_grads = depthwise_weight_grads(
            input,
            grads,
            kernel_size=(kernel.shape[2], kernel.shape[3]),
            padding=ctx.padding,
            dilation=ctx.dilation,
        )
        return weight_grads.unsqueeze(2)
    pad = [side for size in reversed(ctx.padding) for side in (size, size)]
    padded = F.pad(input, pad)
    row_bytes = kernel.numel() // len(kernel) * ctx.groups * grads[0, 0].numel() * input.itemsize
    chunk = max(1, UNFOLD_BYTES // max(1, row_bytes))
    parts = [
        _unfolded_product(ctx, rows, row_grads, kernel)
        for rows, row_grads in zip(padded.split(chunk), grads.split(chunk), strict=True)
    ]
    return torch.cat(parts)


def _unfolded_product(ctx: Any, padded: Tensor, grads: Tensor, kernel: Tensor) -> Tensor:
    """Per row and group: output gradients (P, T) times unfolded windows (T, D)."""
    num_rows, groups, num_dims = len(padded), ctx.groups, kernel.dim() - 2
    windows = padded.unflatten(1, (groups, -1))
    for dim in range(num_dims):
        span = ctx.dilation[dim] * (kernel.shape[2 + dim] - 1) + 1
        windows = windows.unfold(3 + dim, span, ctx.stride[dim])[..., :: ctx.dilation[dim]]
    positions = list(range(3, 3 + num_dims))
    offsets = list(range(3 + num_dims, 3 + 2 * num_dims))
    windows_ZTD = windows.permute(0, 1, *positions, 2, *offsets).reshape(
        num_rows * groups, grads[0, 0].numel(), -1
    )
    grads_ZPT = grads.reshape(num_rows * groups, -1, windows_ZTD.shape[1])
    return torch.bmm(grads_ZPT, windows_ZTD).view(num_rows, *kernel.shape)


def symmetric_padding(layer: Any) -> tuple[int, ...] | None:
    """The zeros added on both sides of each dimension; None where they differ by side."""
    if layer.padding == "valid":
        return tuple(0 for _ in layer.kernel_size)
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return None if any(t % 2 for t in totals) else tuple(t // 2 for t in totals)
    return tuple(layer.padding)
