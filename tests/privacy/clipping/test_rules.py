"""Every rule alone, in small models of many kinds, against the float64 loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import LayerScale, LayerScale2d
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from dpmed.privacy.clipping.clipper import make_clipper

TOLERANCES = {torch.float64: 1e-12, torch.float32: 5e-6}


class ResidualBlock(nn.Module):
    """The 2-D ResNet of the papers: 3×3 convolutions, GroupNorm, Mish, a strided shortcut."""

    def __init__(self, num_in: int, num_out: int, conv: type[nn.Module] = nn.Conv2d) -> None:
        super().__init__()
        self.conv1 = conv(num_in, num_out, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(4, num_out)
        self.conv2 = conv(num_out, num_out, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(4, num_out)
        self.shortcut = conv(num_in, num_out, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out = F.mish(self.norm1(self.conv1(x)))
        return F.mish(self.norm2(self.conv2(out)) + self.shortcut(x))


class LinearAttention(nn.Module):
    """Attention over tokens from Linear layers only."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        # No bias of the keys: its gradient is zero but for rounding.
        self.query, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.project = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mixed = F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        return self.project(mixed)


class SlicesThroughBackbone(nn.Module):
    """A volume's slices as rows of one shared 2-D backbone, pooled per volume."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 6, 4, stride=4), nn.GELU(), nn.Conv2d(6, 6, 7, padding=3, groups=6)
        )
        self.head = nn.Linear(6, 3)

    def forward(self, volume: Tensor) -> Tensor:
        slices = self.backbone(volume.flatten(0, 1).unsqueeze(1)).mean((2, 3))
        return self.head(slices.unflatten(0, volume.shape[:2]).mean(1))


class Shared(nn.Module):
    """One module used three times, and two modules with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.other = nn.Linear(6, 6)
        self.other.weight = self.layer.weight
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.layer(self.norm(x)))
        return self.other(x)


class OwnParameters(nn.Module):
    """A module that no rule knows: its own parameter, and a layer inside."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.rand(5))
        self.inside = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(torch.sin(x * self.temperature)) * self.temperature.sum()


class SelfAttention(nn.Module):
    """torch's fused attention, whose parameters are used inside a functional."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class HalvedKernel(nn.Conv2d):
    """A convolution's own forward around another product."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight / 2, bias)


def resnet_2d() -> nn.Module:
    return nn.Sequential(ResidualBlock(1, 8), ResidualBlock(8, 12), nn.Flatten())


def resnet_3d() -> nn.Module:
    return nn.Sequential(
        ResidualBlock(1, 8, nn.Conv3d), nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(64, 3)
    )


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet_2d": (resnet_2d, (1, 17, 19)),
    "resnet_3d": (resnet_3d, (1, 9, 8, 7)),
    "patch_conv_3d": (lambda: nn.Conv3d(2, 5, 2, stride=2), (2, 5, 6, 4)),
    "pointwise_3d": (lambda: nn.Conv3d(2, 5, 1), (2, 3, 4, 5)),
    "conv_1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (4, 15)),
    "grouped": (lambda: nn.Conv2d(6, 9, 3, stride=2, padding=1, groups=3), (6, 9, 11)),
    "dilated": (lambda: nn.Conv2d(3, 4, (3, 2), dilation=(2, 3), padding=(1, 2)), (3, 9, 11)),
    "same_padding": (lambda: nn.Conv2d(3, 4, 3, padding="same"), (3, 7, 6)),
    "uneven_same_padding": (lambda: nn.Conv2d(3, 4, 2, padding="same"), (3, 7, 6)),
    "reflected": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (3, 7, 6)),
    "halved_kernel": (lambda: HalvedKernel(3, 4, 3), (3, 4, 5)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2), (3, 4, 5)),
    "depthwise": (lambda: nn.Conv2d(6, 6, 7, padding=3, groups=6), (6, 5, 12)),
    "depthwise_one_pixel": (lambda: nn.Conv2d(6, 6, 7, padding=3, groups=6), (6, 1, 1)),
    "depthwise_wider_than_one_pixel": (
        lambda: nn.Conv2d(6, 6, (2, 3), padding=(1, 2), dilation=(1, 2), groups=6),
        (6, 1, 1),
    ),
    "depthwise_smaller_than_kernel": (lambda: nn.Conv2d(6, 6, 7, padding=3, groups=6), (6, 2, 1)),
    "depthwise_dilated": (lambda: nn.Conv2d(6, 6, 3, padding=4, dilation=4, groups=6), (6, 9, 9)),
    "depthwise_strided": (lambda: nn.Conv2d(6, 6, 3, padding=1, stride=2, groups=6), (6, 9, 9)),
    "depthwise_multiplied": (lambda: nn.Conv2d(3, 6, 3, padding=1, groups=3), (3, 6, 7)),
    "depthwise_3d": (lambda: nn.Conv3d(4, 4, 3, padding=1, groups=4), (4, 5, 4, 6)),
    "linear": (lambda: nn.Linear(7, 5), (7,)),
    "linear_on_tokens": (lambda: nn.Linear(7, 5, bias=False), (3, 4, 7)),
    "layer_norm": (lambda: nn.LayerNorm((4, 6)), (3, 4, 6)),
    "layer_norm_without_bias": (lambda: nn.LayerNorm(6, bias=False), (4, 6)),
    "group_norm": (lambda: nn.GroupNorm(2, 6), (6, 5)),
    "layer_scale": (
        lambda: nn.Sequential(nn.Linear(6, 6), LayerScale(6, init_values=0.7, inplace=True)),
        (4, 6),
    ),
    "layer_scale_2d": (lambda: LayerScale2d(6, init_values=0.7), (6, 4, 3)),
    "linear_attention": (LinearAttention, (5, 8)),
    "timm_attention": (lambda: Attention(8, num_heads=2, qkv_bias=True), (5, 8)),
    "multihead_attention": (SelfAttention, (5, 8)),
    "slices": (SlicesThroughBackbone, (3, 16, 12)),
    "shared": (Shared, (4, 6)),
    "own_parameters": (OwnParameters, (5,)),
    "rms_norm": (lambda: nn.RMSNorm(6), (4, 6)),
    "prelu": (lambda: nn.Sequential(nn.Linear(4, 4), nn.PReLU(4)), (4,)),
}

GENERIC = {
    "uneven_same_padding",
    "reflected",
    "halved_kernel",
    "transposed",
    "multihead_attention",
    "own_parameters",
    "rms_norm",
    "prelu",
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("case", CASES)
def test_rule(exactness: Any, case: str, dtype: torch.dtype) -> None:
    make, shape = CASES[case]
    model = exactness.randomise(make()).to(dtype)
    images = torch.randn(6, *shape, dtype=dtype)
    comparison = exactness.compare(model, images, views=2, max_grad_norm=0.05)
    comparison.assert_below(TOLERANCES[dtype])
    assert bool(comparison.clipper.generic_modules) == (case in GENERIC)


@pytest.mark.parametrize(
    "case", ["resnet_2d", "depthwise", "depthwise_one_pixel", "grouped", "group_norm"]
)
def test_channels_last_inputs(exactness: Any, case: str) -> None:
    make, shape = CASES[case]
    model = exactness.randomise(make()).double()
    images = torch.randn(4, *shape, dtype=torch.float64)
    if images.dim() == 4:
        images = images.to(memory_format=torch.channels_last)
        model = model.to(memory_format=torch.channels_last)
    exactness.compare(model, images).assert_below(1e-12)


@pytest.mark.parametrize("case", ["resnet_2d", "resnet_3d", "linear_attention", "slices"])
@pytest.mark.parametrize("prefer_gram", [True, False])
def test_both_forms_are_exact(
    exactness: Any, monkeypatch: pytest.MonkeyPatch, case: str, prefer_gram: bool
) -> None:
    monkeypatch.setattr("dpmed.privacy.clipping.tape.gram_is_cheaper", lambda **sizes: prefer_gram)
    make, shape = CASES[case]
    model = exactness.randomise(make()).double()
    images = torch.randn(4, *shape, dtype=torch.float64)
    exactness.compare(model, images, views=2).assert_below(1e-12)


@pytest.mark.parametrize("case", ["resnet_2d", "linear_attention", "shared", "own_parameters"])
def test_frozen_parameters_get_nothing(exactness: Any, case: str) -> None:
    make, shape = CASES[case]
    model = exactness.randomise(make()).double()
    parameters = list(model.parameters())
    for parameter in parameters[::2]:
        parameter.requires_grad_(False)
    images = torch.randn(4, *shape, dtype=torch.float64)
    exactness.compare(model, images).assert_below(1e-12)
    assert all(not hasattr(p, "summed_grad") for p in parameters[::2])


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_a_weight_that_a_hook_makes_of_two_factors_gets_the_generic_rule() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.utils.weight_norm(nn.Linear(3, 3))).double()
    clipper = make_clipper(
        model, engine="onepass", rule="flat", max_grad_norm=1e9, views_per_unit=1
    )
    inputs = torch.randn(4, 3, dtype=torch.float64)
    clipper.backward(clipper.module(inputs).square().mean(1), torch.ones(4))
    with clipper.module.plain():
        clipper.module(inputs).square().mean(1).sum().backward()
    assert clipper.generic_modules == ["1"]
    for parameter in model.parameters():
        torch.testing.assert_close(parameter.summed_grad, parameter.grad)
