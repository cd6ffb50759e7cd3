"""Models of volumes: what they compute, where their weights come from, and exact unit gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dpmed import models
from dpmed.errors import UserError
from dpmed.models.convnext_2p5d import SliceAttention, slices_of_planes
from dpmed.models.features import forward_with_features
from dpmed.privacy.clipping.clipper import make_clipper
from dpmed.privacy.startup import prove_clipping, synthetic_batch
from dpmed.training.loss import per_view_loss

SIZE = 32
KINDS: list[tuple[str, dict[str, int]]] = [
    ("slices", {"slice_thickness": 16, "num_heads": 4}),
    ("inflated", {"kernel_size": 3}),
]


def _model(kind: str, options: dict[str, int], *, init: str = "scratch") -> Any:
    name = "test_convnext" if init == "scratch" else "convnext_atto"
    twin = models.build_model(name=name, num_labels=2, image_size=SIZE, ls_init_value=0.5)
    provenance = models.initialise(twin, init=init, labels=["a", "b"])
    build = models.slice_model if kind == "slices" else models.inflated_model
    return build(twin, provenance, seed=0, **options)


def _randomise(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=["2.5d", "3d"])
@pytest.mark.parametrize("views", [1, 2])
def test_clipped_sums_equal_a_loop_over_single_units(
    kind: str, options: dict[str, int], views: int
) -> None:
    model, _ = _model(kind, options)
    _randomise(model)
    model = model.double()
    generator = torch.Generator().manual_seed(2)
    volumes_V = torch.rand(3 * views, 1, SIZE, SIZE, SIZE, generator=generator).double()
    targets_V = torch.randint(0, 2, (3 * views, 2), generator=generator).double()
    parameters = dict(model.named_parameters())

    def unit_gradient(rows: slice) -> list[Tensor]:
        loss = per_view_loss(model(volumes_V[rows]), targets_V[rows]).sum() / views
        return list(torch.autograd.grad(loss, list(parameters.values())))

    singles = [unit_gradient(slice(i, i + views)) for i in range(0, 3 * views, views)]
    norms = [torch.cat([g.flatten() for g in single]).norm() for single in singles]
    bound = float(torch.stack(norms).median())  # some are clipped, some are not

    clipper = make_clipper(
        model, engine="onepass", rule="flat", max_grad_norm=bound, views_per_unit=views
    )
    assert not clipper.generic_modules
    losses_V = per_view_loss(clipper.module(volumes_V), targets_V)
    stats = clipper.backward(losses_V, torch.full_like(losses_V.detach(), 1.0 / views))
    torch.testing.assert_close(stats.norms_B, torch.stack(norms), rtol=1e-10, atol=0)
    scale = clipper.sensitivity
    factors = [min(1.0, scale / float(norm)) for norm in norms]
    for index, (name, parameter) in enumerate(parameters.items()):
        expected = sum(f * single[index] for f, single in zip(factors, singles, strict=True))
        found: Any = parameter.summed_grad  # type: ignore[attr-defined]
        assert float((found - expected).norm()) <= 1e-9 * float(found.norm()) + 1e-12, name


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=["2.5d", "3d"])
def test_features_lead_to_the_same_logits(kind: str, options: dict[str, int]) -> None:
    model, provenance = _model(kind, options)
    volumes = torch.rand(2, 1, SIZE, SIZE, SIZE)
    features = forward_with_features(model.eval(), volumes)
    torch.testing.assert_close(features.logits_NL, model(volumes))
    assert [stage.shape for stage in features.stages_NC] == [(2, c) for c in (24, 32, 48, 64)]
    assert provenance.num_rebuilt == sum(p.numel() for p in model.parameters())
    for choice in ("head", "last_stage", "norm_and_bias", "lora"):
        chosen = models.select_trainable(_model(kind, options)[0], trainable=choice)
        assert 0 < chosen.num_trainable < chosen.num_parameters


def test_slabs_are_means_of_the_three_planes() -> None:
    volume = torch.rand(1, 1, 4, 4, 4)
    slabs = slices_of_planes(volume, thickness=2)[0]
    cube = volume[0, 0]
    assert slabs.shape == (6, 4, 4)
    torch.testing.assert_close(slabs[0], cube[:2].mean(0))
    torch.testing.assert_close(slabs[3], cube[:, 2:].mean(1))
    torch.testing.assert_close(slabs[4], cube[:, :, :2].mean(2))


def test_attention_starts_as_the_mean_and_refuses_heads_that_do_not_divide() -> None:
    features = torch.rand(3, 5, 8)
    attention = SliceAttention(8, num_heads=2)
    torch.testing.assert_close(attention(features), features.mean(1))
    with torch.no_grad():
        attention.out.weight.fill_(1.0)
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(attention(features[:, order]), attention(features))
    assert not torch.allclose(attention(features), features.mean(1))
    with pytest.raises(UserError, match=r"model\.num_heads=3"):
        SliceAttention(8, num_heads=3)


def test_two_dimensional_weights_are_used_or_inflated() -> None:
    slices, provenance = _model("slices", KINDS[0][1], init="synthetic")
    assert provenance.num_rebuilt == sum(
        p.numel() for name, p in slices.named_parameters() if name.startswith("head.")
    )
    inflated, provenance = _model("inflated", {"kernel_size": 7}, init="synthetic")
    assert "inflated" in provenance.stem
    flat = slices.backbone.state_dict()
    for name, tensor in inflated.state_dict().items():
        if tensor.ndim == 5:
            torch.testing.assert_close(tensor.sum(2), flat[name])
        elif not name.startswith("head.fc"):
            torch.testing.assert_close(
                tensor.flatten(), flat[name.replace(".scale.gamma", ".gamma")].flatten()
            )


@pytest.mark.parametrize("name", ["convnextv2_atto", "convnext_zepto_rms"])
def test_layers_without_a_3d_form_are_refused(name: str) -> None:
    twin = models.build_model(name=name, num_labels=1, image_size=SIZE)
    provenance = models.Provenance(source="scratch", architecture=name)
    with pytest.raises(UserError, match="no 3-D form"):
        models.inflated_model(twin, provenance, kernel_size=3, seed=0)


@pytest.mark.parametrize("mixes", [False, True])
def test_the_start_up_proof_finds_slices_that_meet_another_volumes(
    mixes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = SliceAttention.forward
    if mixes:
        monkeypatch.setattr(
            SliceAttention, "forward", lambda self, x: own(self, x + 0.01 * x.mean(dim=0))
        )
    model, _ = _model(*KINDS[0])
    clipper = make_clipper(
        model, engine="onepass", rule="flat", max_grad_norm=1.0, views_per_unit=1
    )
    inputs_V, targets_V = synthetic_batch(
        num_units=3, views_per_unit=1, image_shape=(1, SIZE, SIZE, SIZE), num_labels=2
    )

    def prove() -> None:
        prove_clipping(
            clipper,
            losses=lambda volumes, targets: per_view_loss(clipper.module(volumes), targets),
            inputs_V=inputs_V,
            targets_V=targets_V,
        )

    if not mixes:
        prove()
        return
    with pytest.raises(UserError, match="depends on the other units"):
        prove()
