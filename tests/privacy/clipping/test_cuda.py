"""The engine on a GPU: exact in float32, bounded under bf16 autocast, for both memory formats."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from dpmed.privacy.clipping.clipper import make_clipper
from dpmed.privacy.startup import prove_clipping, synthetic_batch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def _full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


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
    clipper = make_clipper(
        model, engine="onepass", rule="flat", max_grad_norm=0.5, views_per_unit=2
    )
    losses_V = clipper.module(images).square().mean(1)
    clipper.backward(losses_V, torch.full((4,), 0.5, device="cuda"))
    for parameter, total in zip(model.parameters(), expected, strict=True):
        assert (parameter.summed_grad.double() - total).norm() <= 1e-5 * total.norm()


@pytest.mark.parametrize("name", ["convnext_atto", "convnext_tiny"])
def test_bf16_keeps_the_bound(name: str) -> None:
    model = convnext(name).to(memory_format=torch.channels_last)
    clipper = make_clipper(
        model,
        engine="onepass",
        rule="flat",
        max_grad_norm=0.1,
        views_per_unit=1,
        dtype=torch.bfloat16,
    )
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
    clipper = make_clipper(
        convnext(), engine="onepass", rule="flat", max_grad_norm=1.0, views_per_unit=1, dtype=dtype
    )
    inputs_V, targets_V = synthetic_batch(
        num_units=4, views_per_unit=1, image_shape=(1, 64, 64), num_labels=5, device="cuda"
    )

    def losses(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = clipper.module(images)
        return (logits.float() - targets).square().mean(1)

    prove_clipping(clipper, losses=losses, inputs_V=inputs_V, targets_V=targets_V)
