"""The start-up proof passes on sound models and catches planted defects, naming the culprit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import timm
import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn

from dpmed.errors import UserError
from dpmed.privacy.clipping.clipper import Clipper, make_clipper
from dpmed.privacy.clipping.reference import CorrectedGradSampleModule
from dpmed.privacy.startup import ClippingProof, prove_clipping, synthetic_batch


@pytest.fixture(autouse=True)
def _own_seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def small_convnext(**kwargs: object) -> nn.Module:
    return timm.create_model(
        "convnext_atto", in_chans=1, num_classes=5, depths=(1, 1, 1, 1), **kwargs
    )


def clip(model: nn.Module, *, engine: str = "onepass", views: int = 1) -> Clipper:
    return make_clipper(model, engine=engine, rule="flat", max_grad_norm=1.0, views_per_unit=views)


def bce(logits_VL: Tensor, targets_VL: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits_VL, targets_VL, reduction="none").mean(1)


def prove(
    clipper: Clipper, losses: Callable[[Tensor, Tensor], Tensor] | None = None
) -> ClippingProof:
    inputs_V, targets_V = synthetic_batch(
        num_units=4, views_per_unit=clipper.views_per_unit, image_shape=(1, 64, 64), num_labels=5
    )
    path = losses or (lambda images, targets: bce(clipper.module(images), targets))
    return prove_clipping(clipper, losses=path, inputs_V=inputs_V, targets_V=targets_V)


@pytest.mark.parametrize("engine", ["onepass", "opacus_hooks", "opacus_functorch"])
def test_a_sound_model_passes_fast_and_is_left_as_it_was(engine: str) -> None:
    model = small_convnext()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    clipper = clip(model, engine=engine, views=2)
    state = torch.get_rng_state()
    start = time.process_time()
    proof = prove(clipper)
    assert time.process_time() - start < 5.0
    assert proof.worst_relative_error < 1e-5
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.summed_grad is None and p.grad is None for p in model.parameters())


def test_dropout_and_drop_path_do_not_disturb_the_proof() -> None:
    model = small_convnext(drop_rate=0.3, drop_path_rate=0.3)
    prove(clip(model))
    assert all(module.training for module in model.modules())


class NormaliseOverBatch(nn.Module):
    """BatchNorm in disguise: no buffers, no telling name."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.std(0) + 1.0)


def test_batch_norm_in_disguise_is_named() -> None:
    model = small_convnext()
    model.stages[1].downsample.append(NormaliseOverBatch())
    with pytest.raises(UserError, match=r"'stages\.1\.downsample\.2' \(NormaliseOverBatch\)"):
        prove(clip(model))


def test_a_plain_batch_norm_is_refused_before_that() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    with pytest.raises(UserError, match=r"'1' \(BatchNorm2d\)"):
        clip(model)


def test_weighted_mean_over_the_batch_is_caught() -> None:
    clipper = clip(small_convnext())

    def losses(images: Tensor, targets: Tensor) -> Tensor:
        weights = 1.0 + 3.0 * targets
        raw = F.binary_cross_entropy_with_logits(clipper.module(images), targets, reduction="none")
        return (raw * weights).mean(1) / weights.mean()

    with pytest.raises(UserError, match="through the loss"):
        prove(clipper, losses)


def test_focal_normaliser_is_caught() -> None:
    clipper = clip(small_convnext())

    def losses(images: Tensor, targets: Tensor) -> Tensor:
        raw = F.binary_cross_entropy_with_logits(clipper.module(images), targets, reduction="none")
        focal = (1 - torch.exp(-raw)) ** 2
        return (raw * focal).sum(1) / focal.sum()

    with pytest.raises(UserError, match="through the loss"):
        prove(clipper, losses)


def test_mixup_within_the_batch_is_caught() -> None:
    clipper = clip(small_convnext())

    def losses(images: Tensor, targets: Tensor) -> Tensor:
        share = 0.5 + 0.5 * torch.rand(())
        order = torch.randperm(len(images))
        images = share * images + (1 - share) * images[order]
        targets = share * targets + (1 - share) * targets[order]
        return bce(clipper.module(images), targets)

    with pytest.raises(UserError, match="what is done to the batch before the model"):
        prove(clipper, losses)


def test_opacus_stride_defect_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    released = dict(GradSampleModule.GRAD_SAMPLERS)
    monkeypatch.setattr(CorrectedGradSampleModule, "GRAD_SAMPLERS", released)
    with pytest.raises(UserError, match=r"in module '.*' \(Conv2d\)"):
        prove(clip(small_convnext(ls_init_value=None), engine="opacus_hooks"))


def test_a_loss_that_is_one_number_is_refused() -> None:
    clipper = clip(small_convnext())
    with pytest.raises(UserError, match="one loss an image"):
        prove(clipper, lambda images, targets: bce(clipper.module(images), targets).mean())
