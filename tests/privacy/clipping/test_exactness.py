"""The clipped sum and the norms equal a float64 loop over single units, on every ConvNeXt."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from dpmed.privacy.clipping.convnext_mlp import ScaledMlp

FLOAT64_TOLERANCE = 1e-12
FLOAT32_TOLERANCE = 5e-6
TOLERANCES = {torch.float64: FLOAT64_TOLERANCE, torch.float32: FLOAT32_TOLERANCE}


def convnext(name: str = "convnext_atto", **kwargs: Any) -> nn.Module:
    options = {"depths": (1, 1, 2, 1), **kwargs}
    return timm.create_model(name, in_chans=1, num_classes=5, **options)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("clipped", ["all", "some", "none"])
def test_clip_norms(exactness: Any, dtype: torch.dtype, clipped: str) -> None:
    model = exactness.randomise(convnext()).to(dtype)
    images = torch.randn(4, 1, 64, 64, dtype=dtype)
    norms_B = exactness.loop(model, images, torch.ones(4), 1, lambda norm: 1.0).norms_B
    bounds = {"all": 1e-3, "some": float(norms_B.median()) * 1.0001, "none": 1e6}
    assert {"all": 4, "some": 2, "none": 0}[clipped] == int((norms_B > bounds[clipped]).sum())
    comparison = exactness.compare(model, images, max_grad_norm=bounds[clipped])
    comparison.assert_below(TOLERANCES[dtype])


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("convnext_atto", {"conv_mlp": False}),
        ("convnextv2_atto", {"conv_mlp": False}),
        ("convnextv2_atto", {"conv_mlp": True}),
        ("convnext_atto_ols", {}),
        ("convnext_atto", {"ls_init_value": None}),
        ("convnext_atto", {"head_hidden_size": 24}),
        ("convnext_atto", {"head_norm_first": True}),
        ("convnext_atto", {"output_stride": 16}),
        ("convnext_zepto_rms", {}),
        ("convnext_tiny", {"depths": (1, 1, 2, 1)}),
        ("convnext_tiny.dinov3_lvd1689m", {"depths": (1, 1, 1, 1)}),
    ],
)
def test_variants_of_convnext(exactness: Any, name: str, kwargs: dict[str, Any]) -> None:
    model = exactness.randomise(convnext(name, **kwargs)).double()
    images = torch.randn(3, 1, 64, 64, dtype=torch.float64)
    exactness.compare(model, images).assert_below(FLOAT64_TOLERANCE)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_views_and_padding(exactness: Any, dtype: torch.dtype) -> None:
    model = exactness.randomise(convnext()).to(dtype)
    images = torch.randn(8, 1, 64, 64, dtype=dtype)
    comparison = exactness.compare(model, images, views=2, num_padding_units=1)
    comparison.assert_below(TOLERANCES[dtype])


@pytest.mark.parametrize("size", [(65, 97), (33, 47), (32, 32)])
def test_odd_image_sizes(exactness: Any, size: tuple[int, int]) -> None:
    model = exactness.randomise(convnext()).double()
    images = torch.randn(3, 1, *size, dtype=torch.float64)
    exactness.compare(model, images).assert_below(FLOAT64_TOLERANCE)


def test_maps_larger_than_one_tile(exactness: Any) -> None:
    model = exactness.randomise(convnext(depths=(1, 1, 1, 1))).double()
    images = torch.randn(2, 1, 160, 132, dtype=torch.float64)
    exactness.compare(model, images).assert_below(FLOAT64_TOLERANCE)


@pytest.mark.parametrize("conv_mlp", [True, False])
def test_channels_last(exactness: Any, conv_mlp: bool) -> None:
    model = exactness.randomise(convnext(conv_mlp=conv_mlp)).double()
    model = model.to(memory_format=torch.channels_last)
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)[:, :1]
    images = images.to(memory_format=torch.channels_last)
    exactness.compare(model, images).assert_below(FLOAT64_TOLERANCE)


@pytest.mark.parametrize(
    ("name", "kwargs", "is_fused"),
    [
        ("convnext_atto", {}, True),
        ("convnext_tiny", {}, True),
        ("convnext_tiny.dinov3_lvd1689m", {}, True),
        ("convnext_atto", {"act_layer": "gelu_tanh"}, True),
        ("convnext_atto", {"act_layer": "relu"}, False),
        ("convnextv2_atto", {}, False),
    ],
)
def test_the_usual_block_runs_as_one_function(
    exactness: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kwargs: dict[str, Any],
    is_fused: bool,
) -> None:
    calls = []
    forward = ScaledMlp.forward

    def counted(*args: Any) -> Any:
        calls.append(args)
        return forward(*args)

    monkeypatch.setattr(ScaledMlp, "forward", staticmethod(counted))
    model = exactness.randomise(convnext(name, depths=(1, 1, 1, 1), **kwargs)).double()
    images = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    exactness.compare(model, images).assert_below(FLOAT64_TOLERANCE)
    assert len(calls) == (4 if is_fused else 0)


@pytest.mark.parametrize("conv_mlp", [True, False])
@pytest.mark.parametrize("pixels", [32, 96])
def test_blocks_worked_through_in_chunks(
    exactness: Any, monkeypatch: pytest.MonkeyPatch, conv_mlp: bool, pixels: int
) -> None:
    monkeypatch.setattr("dpmed.privacy.clipping.convnext_mlp.CHUNK_BYTES", 200_000)
    model = exactness.randomise(convnext(conv_mlp=conv_mlp)).double()
    images = torch.randn(6, 1, pixels, pixels, dtype=torch.float64)
    exactness.compare(model, images, views=2).assert_below(FLOAT64_TOLERANCE)


def test_automatic_rule(exactness: Any) -> None:
    model = exactness.randomise(convnext()).double()
    images = torch.randn(3, 1, 64, 64, dtype=torch.float64)
    comparison = exactness.compare(model, images, rule="automatic", max_grad_norm=0.7)
    comparison.assert_below(FLOAT64_TOLERANCE)
    assert comparison.clipper.sensitivity == 0.7


@pytest.mark.parametrize("engine", ["opacus_hooks", "opacus_functorch"])
def test_reference_engines(exactness: Any, engine: str) -> None:
    model = exactness.randomise(convnext(depths=(1, 1, 1, 1))).double()
    images = torch.randn(4, 1, 64, 64, dtype=torch.float64)
    exactness.compare(model, images, engine=engine, views=2).assert_below(FLOAT64_TOLERANCE)
