"""The per-row weight gradient of a depthwise convolution.

dW[r,c,i,j] = Σ_hw xpad[r,c,h+i,w+j] · g[r,c,h,w] correlates each channel of each row with its own
output gradient. On the CPU that is a *forward* depthwise convolution with R·C groups and g as the
kernel; with rows and channels together as the innermost dimension it takes a tenth of the time of
the library's own weight gradient on small maps, a third on large ones. On CUDA the library's
weight gradient is asked for R·C groups, since its forward kernels are made for small kernels only.
Maps of one pixel, the last of a ConvNeXt on 32-pixel images, need neither: x[r,c] times g reversed.

Legend: R rows, C channels, H W height and width, k kernel size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def depthwise_weight_grads(
    input_RCHW: Tensor,
    grads_RCHW: Tensor,
    *,
    kernel_size: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Weight gradients [R, C, k, k] of a stride-1 depthwise convolution with zero padding."""
    num_rows, num_channels = grads_RCHW.shape[:2]
    if input_RCHW.shape[2:] == (1, 1):
        return _of_one_pixel(input_RCHW, grads_RCHW, kernel_size, padding, dilation)
    if input_RCHW.is_cuda:
        return _native(input_RCHW, grads_RCHW, kernel_size, padding, dilation)
    groups = num_rows * num_channels
    # (1, R·C, H, W), channels_last: for a channels_last input no element moves far.
    merged = input_RCHW.permute(2, 3, 0, 1).flatten(2).permute(2, 0, 1).unsqueeze(0)
    kernels = grads_RCHW.reshape(groups, 1, *grads_RCHW.shape[2:])
    weight_grads = F.conv2d(merged, kernels, stride=dilation, padding=padding, groups=groups)
    return weight_grads.view(num_rows, num_channels, *weight_grads.shape[2:])


def _of_one_pixel(
    input_RC11: Tensor,
    grads_RCHW: Tensor,
    kernel_size: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """dW[r,c,i,j] = x[r,c] · g[r,c,p-di,p-dj], zero where g has no such position."""
    sides = [d * (k - 1) - p for k, p, d in zip(kernel_size, padding, dilation, strict=True)]
    placed = F.pad(grads_RCHW, [sides[1], sides[1], sides[0], sides[0]]).flip(2, 3)
    weight_grads = input_RC11 * placed[:, :, :: dilation[0], :: dilation[1]]
    # One layout always: that of one pixel is ambiguous, and a traced graph relies on its guess.
    return weight_grads.clone(memory_format=torch.contiguous_format)


def _native(
    input_RCHW: Tensor,
    grads_RCHW: Tensor,
    kernel_size: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The library's weight gradient of one row with R·C channels."""
    num_rows, num_channels = grads_RCHW.shape[:2]
    groups = num_rows * num_channels
    weight_grads = torch.ops.aten.convolution_backward(
        grads_RCHW.reshape(1, groups, *grads_RCHW.shape[2:]),
        input_RCHW.reshape(1, groups, *input_RCHW.shape[2:]),
        input_RCHW.new_empty(groups, 1, *kernel_size),
        None,
        [1, 1],
        padding,
        dilation,
        False,
        [0, 0],
        groups,
        [False, True, False],
    )[1]
    return weight_grads.view(num_rows, num_channels, *kernel_size)
