"""The rule for timm's ConvNeXtBlock, whose layer scale `gamma` belongs to the block itself.

Where the block's parts are the usual ones, norm, MLP, layer scale and residual run as one function
(`convnext_mlp`). Otherwise they run one by one, each under its own rule.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dpmed.privacy.clipping.convnext_mlp import ScaledMlp, gelu_form
from dpmed.privacy.clipping.layer import RecordingLayer
from dpmed.privacy.clipping.scale import scale


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
        anchor = self._dpmed_tape.anchor
        if _drops_paths(self.drop_path):
            return self.drop_path(ScaledMlp.apply(x, None, anchor, self)) + shortcut
        return ScaledMlp.apply(x, shortcut, anchor, self)

    def _part_by_part(self, x: Tensor) -> Tensor:
        if self.use_conv_mlp:
            x = self.mlp(self.norm(x))
        else:
            x = self.mlp(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return scale(x, self.gamma, 1, self._dpmed_tape)


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
        gelu_form(getattr(mlp, "act", None)) is not None
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
