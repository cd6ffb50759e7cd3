"""Rules for parameters that multiply or shift channels: layer scale and GRN.

Legend: R rows, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dpmed.privacy.clipping.layer import RecordingLayer, trainable
from dpmed.privacy.clipping.tape import Tape


class RecordingLayerScale(RecordingLayer):
    """x · gamma over the last dimension."""

    gamma: nn.Parameter

    def record_forward(self, x: Tensor) -> Tensor:
        """Never in place: the input is kept for the gradient of gamma."""
        return scale(x, self.gamma, -1, self._dpmed_tape)


class RecordingChannelScale(RecordingLayer):
    """x · gamma over dimension 1."""

    gamma: nn.Parameter

    def record_forward(self, x: Tensor) -> Tensor:
        """Never in place: the input is kept for the gradient of gamma."""
        return scale(x, self.gamma, 1, self._dpmed_tape)


class RecordingGlobalResponseNorm(RecordingLayer):
    """ConvNeXt-V2's GRN: x + weight · (x · n(x)) + bias; only the affine part is recorded."""

    weight: nn.Parameter
    bias: nn.Parameter
    eps: float
    spatial_dim: tuple[int, int]
    channel_dim: int

    def record_forward(self, x: Tensor) -> Tensor:
        """n(x) = |x|₂ over space, divided by its mean over channels: within one row."""
        norms = x.norm(p=2, dim=self.spatial_dim, keepdim=True)
        normed = norms / (norms.mean(dim=self.channel_dim, keepdim=True) + self.eps)
        tape, dim = self._dpmed_tape, self.channel_dim
        return x + shift(scale(x * normed, self.weight, dim, tape), self.bias, dim, tape)


def scale(input: Tensor, gamma: nn.Parameter, channel_dim: int, tape: Tape) -> Tensor:
    """Input · gamma along a dimension, recorded."""
    return _Scale.apply(input, tape.anchor, (gamma,), channel_dim % input.dim(), tape)


def shift(input: Tensor, beta: nn.Parameter, channel_dim: int, tape: Tape) -> Tensor:
    """Input + beta along a dimension, recorded."""
    return _Shift.apply(input, tape.anchor, (beta,), channel_dim % input.dim(), tape)


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        anchor: Tensor,
        parameters: tuple[nn.Parameter],
        channel_dim: int,
        tape: Tape,
    ) -> Tensor:
        (gamma,) = parameters
        ctx.save_for_backward(input if gamma.requires_grad else None, gamma)
        ctx.gamma, ctx.channel_dim, ctx.tape = trainable(gamma), channel_dim, tape
        return input * _along(gamma, input.dim(), channel_dim)

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        input, gamma = ctx.saved_tensors
        if ctx.gamma is not None:
            ctx.tape.add_instance(ctx.gamma, _sum_over_positions(grads * input, ctx.channel_dim))
        scaled = None
        if ctx.needs_input_grad[0]:
            scaled = grads * _along(gamma, grads.dim(), ctx.channel_dim)
        return scaled, None, None, None, None


class _Shift(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        anchor: Tensor,
        parameters: tuple[nn.Parameter],
        channel_dim: int,
        tape: Tape,
    ) -> Tensor:
        (beta,) = parameters
        ctx.beta, ctx.channel_dim, ctx.tape = trainable(beta), channel_dim, tape
        return input + _along(beta, input.dim(), channel_dim)

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.beta is not None:
            ctx.tape.add_instance(ctx.beta, _sum_over_positions(grads, ctx.channel_dim))
        return grads, None, None, None, None


def _along(vector: Tensor, num_dims: int, dim: int) -> Tensor:
    return vector.view([-1 if i == dim else 1 for i in range(num_dims)])


def _sum_over_positions(tensor: Tensor, channel_dim: int) -> Tensor:
    """(R, ..., C, ...) to (R, C)."""
    dims = [i for i in range(1, tensor.dim()) if i != channel_dim]
    return tensor.sum(dims) if dims else tensor
