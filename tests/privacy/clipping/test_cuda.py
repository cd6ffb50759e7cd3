"""The engine on a GPU: exact in float32, bounded under bf16 autocast, for both memory formats."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import timm
import torch
from torch import nn

from dpmed.privacy.startup import prove_clipping, synthetic_batch
from tests.privacy.clipping.conftest import clip

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def _full_float32() -> Iterator[None]:
    # By hand: monkeypatch cannot undo an attribute that `__getattr__` makes.
    places = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = False
    yield
    for place, value in zip(places, before, strict=True):
        place.allow_tf32 = value


def convnext(name: str = "convnext_atto") -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, in_chans=1, num_classes=5)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "gamma" in parameter_name or "grn" in parameter_name:
                parameter.uniform_(0.2, 1.0)
    return model.cuda()


@pytest.mark.parametrize("name", ["convnext_atto", "convnextv2_atto", "convnext_tiny"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("pixels", [64, 224])
def test_float32_equals_a_float64_loop(
    name: str, memory_format: torch.memory_format, pixels: int
) -> None:
    model = convnext(name).to(memory_format=memory_format)
    exact = copy.deepcopy(model).double()
    images = torch.randn(4, 1, pixels, pixels, device="cuda").to(memory_format=memory_format)
    expected = [torch.zeros_like(p) for p in exact.parameters()]
    for start in (0, 2):
        loss = exact(images[start : start + 2].double()).square().mean(1).sum() / 2
        grads = torch.autograd.grad(loss, list(exact.parameters()))
        norm = torch.stack([g.norm() for g in grads]).norm()
        for total, grad in zip(expected, grads, strict=True):
            total += grad * min(1.0, 0.5 / float(norm))
    clipper = clip(model, max_grad_norm=0.5, views_per_unit=2)
    losses_V = clipper.module(images).square().mean(1)
    clipper.backward(losses_V, torch.full((4,), 0.5, device="cuda"))
    for parameter, total in zip(model.parameters(), expected, strict=True):
        assert (parameter.summed_grad.double() - total).norm() <= 1e-5 * total.norm()


@pytest.mark.parametrize("name", ["convnext_atto", "convnext_tiny"])
def test_bf16_keeps_the_bound(name: str) -> None:
    model = convnext(name).to(memory_format=torch.channels_last)
    clipper = clip(model, max_grad_norm=0.1, dtype=torch.bfloat16)
    images = torch.randn(4, 1, 224, 224, device="cuda")
    for unit in range(4):
        weights_V = torch.zeros(4, device="cuda")
        weights_V[unit] = 1.0
        with torch.autocast("cuda", dtype=torch.bfloat16):
            logits = clipper.module(images)
        clipper.backward(logits.float().square().mean(1), weights_V)
        norms = [p.summed_grad.double().norm() for p in model.parameters()]
        assert torch.stack(norms).norm() <= clipper.sensitivity
        for parameter in model.parameters():
            parameter.summed_grad = None


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_start_up_proof_passes(precision: str) -> None:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    clipper = clip(convnext(), dtype=dtype)
    inputs_V, targets_V = synthetic_batch(
        num_units=4, views_per_unit=1, image_shape=(1, 64, 64), num_labels=5, device="cuda"
    )

    def losses(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = clipper.module(images)
        return (logits.float() - targets).square().mean(1)

    prove_clipping(clipper, losses=losses, inputs_V=inputs_V, targets_V=targets_V)


def test_in_bf16_one_more_unit_moves_the_sum_by_no_more_than_the_sensitivity() -> None:
    # Few parameters, so that roundings do not average out; many units, whose sum rounds coarsely.
    torch.manual_seed(0)
    model = nn.Linear(4, 2).cuda()
    clipper = clip(model, max_grad_norm=0.01, dtype=torch.bfloat16)
    inputs, everybody = 3 * torch.randn(24, 4, device="cuda"), torch.ones(24, device="cuda")

    def total(weights_V: torch.Tensor) -> torch.Tensor:
        for parameter in model.parameters():
            parameter.summed_grad = None
        with torch.autocast("cuda", dtype=torch.bfloat16):
            outputs = clipper.module(inputs)
        clipper.backward(outputs.float().square().mean(1), weights_V)
        return torch.cat([p.summed_grad.double().flatten() for p in model.parameters()])

    for unit in torch.eye(24, device="cuda"):
        moved = (total(everybody) - total(everybody - unit)).norm()
        assert 0.99 * 0.01 < moved <= clipper.sensitivity


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bf16", 2e-2)])
def test_the_compiled_form_stays_near_the_eager_one(precision: str, tolerance: float) -> None:
    sums = []
    for backend in (None, "inductor"):
        model = convnext()
        clipper = clip(
            model,
            max_grad_norm=0.1,
            views_per_unit=2,
            dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
            compile_backend=backend,
        )
        torch.manual_seed(1)
        images = torch.randn(4, 1, 64, 64, device="cuda")
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bf16"):
            outputs = clipper.module(images)
        losses_V = outputs.float().square().mean(1)
        clipper.backward(losses_V, torch.full((4,), 0.5, device="cuda"))
        sums.append(torch.cat([p.summed_grad.flatten() for p in model.parameters()]))
    assert (sums[1] - sums[0]).norm() <= tolerance * sums[0].norm()
