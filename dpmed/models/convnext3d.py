"""A 3-D ConvNeXt for volumes, inflated from a 2-D one of timm: same stages, widths and names.

Stands between a volume (float32 in [0, 1]) and the loss. Depthwise convolutions see k × k × k
voxels; the other layers act on single positions, channels last, so that they are plain `Linear`
and `LayerNorm`. Nothing here knows about privacy.

Shapes: N volumes, D H W voxels, C channels of a stage, F features, L labels.

Source: Liu et al. 2022, A ConvNet for the 2020s (arXiv 2201.03545). Inflation: Carreira and
Zisserman 2017, Quo Vadis, Action Recognition (arXiv 1705.07750), section 2.4.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from timm.layers import DropPath, LayerScale
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from dpmed.errors import UserError

KERNEL_SIZES = (3, 5, 7)


def inflate(twin: ConvNeXt, *, kernel_size: int) -> ConvNeXt3d:
    """The 3-D network whose answer on a volume that is constant along depth is the 2-D one's.

    Every 2-D kernel is repeated along depth and divided by its length. (The answer is the same
    away from the first and last slices, where zeros are padded, and where the kernel is kept
    whole.)

    Args:
        twin: from `backbone.build_model`, with the weights to start from.
        kernel_size: k of the depthwise convolutions; below 7 the middle of the 2-D kernel is kept.

    Raises:
        UserError: a ConvNeXt with layers that have no 3-D form here (V2, RMS norm).
    """
    model = ConvNeXt3d(twin, kernel_size=kernel_size)
    weights = {
        name.replace(".gamma", ".scale.gamma"): tensor for name, tensor in twin.state_dict().items()
    }
    own = model.state_dict()
    assert set(own) == set(weights), set(own) ^ set(weights)
    model.load_state_dict({name: _inflated(weights[name], own[name]) for name in own})
    return model


class ConvNeXt3d(nn.Module):
    """Volumes (N, 1, D, H, W) to logits (N, L); sizes are taken from a 2-D twin.

    Args:
        twin: whose stages, widths, layer scales and input normalisation are taken over.
        kernel_size: of the depthwise convolutions, in voxels.
    """

    def __init__(self, twin: ConvNeXt, *, kernel_size: int) -> None:
        super().__init__()
        _check_layers(twin)
        if kernel_size not in KERNEL_SIZES:
            raise UserError(f"model.kernel_size={kernel_size} is not allowed: choose 3, 5 or 7.")
        parts = cast(Any, twin)
        normalise, convolution, norm = parts.stem.children()
        self.means, self.stds = normalise.means, normalise.stds
        self.stem = nn.Sequential(_as_3d(convolution), _as_layer_norm(norm))
        self.stages = nn.ModuleList(Stage3d(stage, kernel_size) for stage in parts.stages)
        self.norm_pre = nn.Identity()
        self.head = Head3d(parts.head)

    def forward(self, volumes: Tensor) -> Tensor:
        """Logits of volumes in [0, 1]."""
        return self.head.fc(self.forward_head(self.forward_features(volumes)))

    def forward_features(self, volumes: Tensor) -> Tensor:
        """The last stage's map (N, D', H', W', F)."""
        return self.forward_intermediates(volumes)[0]

    def forward_intermediates(self, volumes: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last map, and every stage's (N, D', H', W', C)."""
        assert volumes.ndim == 5, f"volumes must be (N, 1, D, H, W), got {tuple(volumes.shape)}"
        channels = [(volumes - m) / s for m, s in zip(self.means, self.stds, strict=True)]
        convolution, norm = self.stem
        x = norm(convolution(torch.cat(channels, dim=1)).movedim(1, -1))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return x, maps

    def forward_head(self, x: Tensor, pre_logits: bool = True) -> Tensor:
        """Pooled, normalised features (N, F): what the last linear layer sees."""
        assert pre_logits
        return self.head.norm(x.mean(dim=(1, 2, 3)))

    def get_classifier(self) -> nn.Module:
        """The last linear layer, under timm's name."""
        return self.head.fc


class Stage3d(nn.Module):
    """Halves the map (but in the first stage), then a row of blocks; channels last."""

    def __init__(self, stage: Any, kernel_size: int) -> None:
        super().__init__()
        self.downsample = nn.Sequential()
        if not isinstance(stage.downsample, nn.Identity):
            norm, convolution = stage.downsample
            self.downsample = nn.Sequential(_as_layer_norm(norm), _as_3d(convolution))
        self.blocks = nn.Sequential(*(Block3d(block, kernel_size) for block in stage.blocks))

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, H, W, C) to (N, D', H', W', C')."""
        if len(self.downsample):
            norm, convolution = self.downsample
            x = convolution(norm(x).movedim(-1, 1)).movedim(1, -1)
        return self.blocks(x)


class Block3d(nn.Module):
    """Depthwise convolution, norm, a two-layer network on each position, layer scale, shortcut."""

    def __init__(self, block: Any, kernel_size: int) -> None:
        super().__init__()
        self.conv_dw = _as_3d(block.conv_dw, kernel_size)
        width = self.conv_dw.out_channels
        self.norm = _as_layer_norm(block.norm)
        self.mlp = Mlp3d(block.mlp)
        self.scale: nn.Module = nn.Identity()
        if block.gamma is not None:
            self.scale = LayerScale(width, init_values=float(block.gamma.detach()[0]))
        self.drop_path = DropPath(getattr(block.drop_path, "drop_prob", 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, H, W, C), unchanged in shape."""
        update = self.conv_dw(x.movedim(-1, 1)).movedim(1, -1)
        return x + self.drop_path(self.scale(self.mlp(self.norm(update))))


class Mlp3d(nn.Module):
    """timm's two layers around their activation, on the last dimension."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        width, hidden = mlp.fc1.weight.shape[1], mlp.fc1.weight.shape[0]
        self.fc1 = nn.Linear(width, hidden)
        self.act = copy.deepcopy(mlp.act)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C), unchanged in shape."""
        return self.fc2(self.act(self.fc1(x)))


class Head3d(nn.Module):
    """The norm of the pooled features, and the last linear layer."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.norm = _as_layer_norm(head.norm)
        self.fc = nn.Linear(head.fc.in_features, head.fc.out_features)


def _as_3d(convolution: Any, kernel_size: int | None = None) -> nn.Conv3d:
    """An unset 3-D convolution with the sizes of a square 2-D one."""
    size = min(kernel_size or convolution.kernel_size[0], convolution.kernel_size[0])
    return nn.Conv3d(
        convolution.in_channels,
        convolution.out_channels,
        size,
        stride=convolution.stride[0],
        padding=size // 2 if convolution.padding[0] else 0,
        groups=convolution.groups,
    )


def _as_layer_norm(norm: Any) -> nn.LayerNorm:
    return nn.LayerNorm(tuple(norm.normalized_shape), eps=norm.eps)


def _inflated(weight: Tensor, like: Tensor) -> Tensor:
    """A 2-D tensor in the shape of its 3-D one."""
    if like.ndim != 5:
        return weight.reshape(like.shape)  # a 1 × 1 convolution is a Linear here
    depth = like.shape[2]
    margin = (weight.shape[-1] - like.shape[-1]) // 2
    middle = weight[..., margin : margin + like.shape[-1], margin : margin + like.shape[-1]]
    return (middle / depth).unsqueeze(2).expand(like.shape)


def _check_layers(twin: ConvNeXt) -> None:
    for name, module in twin.named_modules():
        kind = type(module).__name__
        if kind in ("SimpleNorm", "SimpleNorm2d", "RmsNorm", "RmsNorm2d", "GlobalResponseNorm"):
            raise UserError(
                f"model=convnext3d has no 3-D form of {kind} ({name} of this model.name). Choose a "
                "ConvNeXt V1 such as model.name=convnext_atto, or model=convnext_2p5d."
            )
