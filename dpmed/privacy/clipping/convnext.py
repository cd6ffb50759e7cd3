"""The rule for timm's ConvNeXtBlock: its layer scale `gamma`, and its MLP as one Function.

The block owns `gamma`, so it needs a rule in any case. Where its parts are the usual ones, norm,
MLP, layer scale and residual run as one Function on channels-last rows, which keeps the normalised
activations x̂ once (ordinary autograd keeps the norm's input and its output), merges the norm's
affine part into the first matrix, and passes fewer times over memory. Otherwise the parts run one
by one, each under its own rule.

Legend: R rows, H W height and width, C channels, M = R·H·W.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpmed.privacy.clipping.layer import RecordingLayer, compute_dtype
from dpmed.privacy.clipping.scale import scale

_aten = torch.ops.aten


class RecordingConvNeXtBlock(RecordingLayer):
    """x + drop_path(gamma · MLP(norm(conv_dw(x))))."""

    gamma: nn.Parameter
    conv_dw: nn.Module
    norm: Any
    mlp: Any
    drop_path: Any
    shortcut: nn.Module
    use_conv_mlp: bool

    def record_forward(self, x: Tensor) -> Tensor:
        """The block's own forward, recorded."""
        shortcut = self.shortcut(x)
        x = self.conv_dw(x)
        if not _has_usual_parts(self):
            return self.drop_path(self._part_by_part(x)) + shortcut
        if _drops_paths(self.drop_path):
            return (
                self.drop_path(_ScaledMlp.apply(x, None, self._dpmed_tape.anchor, self)) + shortcut
            )
        return _ScaledMlp.apply(x, shortcut, self._dpmed_tape.anchor, self)

    def _part_by_part(self, x: Tensor) -> Tensor:
        if self.use_conv_mlp:
            x = self.mlp(self.norm(x))
        else:
            x = self.mlp(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return scale(x, self.gamma, 1, self._dpmed_tape)


class _ScaledMlp(torch.autograd.Function):
    """(shortcut +) gamma · (W₂ gelu(W₁ (x̂ w + b) + b₁) + b₂), every parameter recorded."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, shortcut: Tensor | None, anchor: Tensor, block: Any
    ) -> Tensor:
        norm, fc1, fc2, gamma = block.norm, block.mlp.fc1, block.mlp.fc2, block.gamma
        dtype = compute_dtype(input)
        ctx.block, ctx.approximate = block, block.mlp.act.approximate
        rows = input.permute(0, 2, 3, 1)
        rows = rows.to(torch.promote_types(rows.dtype, norm.weight.dtype))
        # The kernel is slower without weight and bias than with ones and zeros.
        ones, zeros = torch.ones_like(norm.weight), torch.zeros_like(norm.weight)
        normed, _, rstd = torch.native_layer_norm(
            rows, norm.normalized_shape, ones, zeros, norm.eps
        )
        normed = normed.to(dtype)
        matrix1, matrix2 = fc1.weight.flatten(1), fc2.weight.flatten(1)
        # W₁ (x̂ w + b) + b₁ = (W₁ diag(w)) x̂ + (W₁ b + b₁)
        merged = (matrix1 * norm.weight).to(dtype)
        hidden = F.linear(normed, merged, torch.addmv(fc1.bias, matrix1, norm.bias).to(dtype))
        active = F.gelu(hidden, approximate=ctx.approximate)
        output = F.linear(active, matrix2.to(dtype), fc2.bias.to(dtype))
        ctx.save_for_backward(normed, rstd, hidden, active, output)
        if shortcut is None:
            scaled = output * gamma
        else:
            scaled = torch.addcmul(shortcut.permute(0, 2, 3, 1), output.to(gamma.dtype), gamma)
        return scaled.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        normed, rstd, hidden, active, output = ctx.saved_tensors
        block, dtype = ctx.block, normed.dtype
        norm, fc1, fc2, gamma = block.norm, block.mlp.fc1, block.mlp.fc2, block.gamma
        tape = block._dpmed_tape
        grads_rows = grads.permute(0, 2, 3, 1).contiguous()
        tape.add_instance(gamma, (grads_rows * output).sum((1, 2)))
        scaled = (grads_rows * gamma).to(dtype)
        tape.add_product(
            fc2.weight, fc2.bias, active.flatten(1, 2), scaled.flatten(1, 2), _like(fc2.weight)
        )
        grads_active = scaled @ fc2.weight.flatten(1).to(dtype)
        grads_hidden = _aten.gelu_backward(grads_active, hidden, approximate=ctx.approximate)
        del grads_active
        affine = torch.addcmul(norm.bias, normed, norm.weight).to(dtype)
        tape.add_product(
            fc1.weight,
            fc1.bias,
            affine.flatten(1, 2),
            grads_hidden.flatten(1, 2),
            _like(fc1.weight),
        )
        grads_affine = (grads_hidden @ fc1.weight.flatten(1).to(dtype)).to(rstd.dtype)
        normed = normed.to(rstd.dtype)
        tape.add_instance(norm.bias, grads_affine.sum((1, 2)))
        tape.add_instance(norm.weight, (grads_affine * normed).sum((1, 2)))
        # The kernel takes x̂ for its input where the mean is 0 and the deviation 1.
        grads_input = _aten.native_layer_norm_backward(
            grads_affine,
            normed,
            norm.normalized_shape,
            torch.zeros_like(rstd),
            torch.ones_like(rstd),
            norm.weight,
            None,
            [True, False, False],
        )[0].mul_(rstd)
        grads_shortcut = grads if ctx.needs_input_grad[1] else None
        return grads_input.permute(0, 3, 1, 2), grads_shortcut, None, None


def _has_usual_parts(block: RecordingConvNeXtBlock) -> bool:
    """LayerNorm over channels, two biased matrices with GELU between, all trained and unhooked."""
    norm, mlp = block.norm, block.mlp
    layers = (norm, getattr(mlp, "fc1", None), getattr(mlp, "fc2", None))
    if not isinstance(norm, nn.LayerNorm) or not all(
        isinstance(layer, RecordingLayer) and _is_trained_and_unhooked(layer) for layer in layers
    ):
        return False
    dropouts = (getattr(mlp, name, None) for name in ("drop1", "drop2"))
    return (
        type(getattr(mlp, "act", None)) is nn.GELU
        and isinstance(getattr(mlp, "norm", None), nn.Identity)
        and all(isinstance(d, nn.Dropout) and not (d.training and d.p) for d in dropouts)
        and len(norm.normalized_shape) == 1
        and block.gamma.requires_grad
        and not mlp._forward_hooks
    )


def _is_trained_and_unhooked(layer: Any) -> bool:
    weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias")
    trained = all(p is not None and p.requires_grad for p in (weight, bias))
    return trained and not layer._forward_hooks and not layer._forward_pre_hooks


def _drops_paths(drop_path: Any) -> bool:
    return drop_path.training and bool(getattr(drop_path, "drop_prob", 0.0))


def _like(weight: Tensor) -> Any:
    return lambda grads: grads.reshape(*grads.shape[:-2], *weight.shape)
