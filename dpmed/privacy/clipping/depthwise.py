"""The per-row weight gradient of a depthwise convolution, as a forward depthwise convolution.

dW[r,c,i,j] = Σ_hw xpad[r,c,h+i,w+j] · g[r,c,h,w] is a cross-correlation of each row's each channel
with its own output gradient: R·C groups with g as the kernel.

Legend: R rows, C channels, H W output height and width, k kernel size.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

# Larger kernels than this fall off the library's fast path.
TILE = 28


def depthwise_weight_grads(
    input_RCHW: Tensor,
    grads_RCHW: Tensor,
    *,
    kernel_size: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """Weight gradients [R, C, k, k] of a stride-1 depthwise convolution with zero padding."""
    padded = F.pad(input_RCHW, (padding[1], padding[1], padding[0], padding[0]))
    height, width = grads_RCHW.shape[2:]
    halo = [dilation[i] * (kernel_size[i] - 1) for i in (0, 1)]
    total: Tensor | None = None
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            kernel = grads_RCHW[:, :, top : top + TILE, left : left + TILE]
            window = padded[
                :, :, top : top + kernel.shape[2] + halo[0], left : left + kernel.shape[3] + halo[1]
            ]
            part = _correlate(window, kernel, dilation)
            total = part if total is None else total.add_(part)
    assert total is not None
    return total


def _correlate(window_RCHW: Tensor, kernel_RCHW: Tensor, dilation: tuple[int, int]) -> Tensor:
    """Each row's each channel with its own kernel: [R, C, k, k]."""
    num_rows, num_channels = kernel_RCHW.shape[:2]
    groups = num_rows * num_channels
    output = F.conv2d(
        window_RCHW.reshape(1, groups, *window_RCHW.shape[2:]),
        kernel_RCHW.reshape(groups, 1, *kernel_RCHW.shape[2:]),
        stride=dilation,
        groups=groups,
    )
    return output.view(num_rows, num_channels, *output.shape[2:])
