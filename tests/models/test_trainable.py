"""What is trained: the right parameters, frozen ones untouched, and exact per-unit clipping."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from dpmed.errors import UserError
from dpmed.models.trainable import TRAINABLE_CHOICES, merge_lora, select_trainable
from dpmed.privacy.clipping.clipper import make_clipper


def convnext(*, conv_mlp: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "convnext_atto",
        in_chans=1,
        num_classes=5,
        depths=(1, 1, 1, 1),
        conv_mlp=conv_mlp,
        ls_init_value=0.5,
    )


def trained_names(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("choice", "inside", "outside"),
    [
        ("full", "stem.0.weight", None),
        ("head", "head.fc.bias", "head.norm.weight"),
        ("last_stage", "stages.3.downsample.1.weight", "stages.2.blocks.0.mlp.fc1.weight"),
        ("norm_and_bias", "stages.0.blocks.0.gamma", "stages.3.blocks.0.mlp.fc1.weight"),
        ("lora", "stages.0.blocks.0.mlp.fc1.down.weight", "stages.0.blocks.0.mlp.fc1.weight"),
    ],
)
def test_choices(choice: str, inside: str, outside: str | None) -> None:
    model = convnext()
    summary = select_trainable(model, trainable=choice)
    names = trained_names(model)
    assert inside in names
    assert outside not in names
    assert {"head.fc.weight", "head.fc.bias"} <= names
    assert summary.num_trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert summary.num_parameters == sum(p.numel() for p in model.parameters())
    assert choice in summary.sentence()


@pytest.mark.parametrize("choice", TRAINABLE_CHOICES)
@pytest.mark.parametrize("conv_mlp", [True, False])
def test_each_choice_is_exact_under_the_engine(choice: str, conv_mlp: bool) -> None:
    model = convnext(conv_mlp=conv_mlp).double()
    select_trainable(model, trainable=choice)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("up.weight"):
                parameter.normal_()
    images = torch.randn(3, 1, 64, 64, dtype=torch.float64)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    expected = {name: torch.zeros_like(p) for name, p in trained.items()}
    for image in images:
        loss = model(image[None]).square().mean()
        grads = torch.autograd.grad(loss, list(trained.values()))
        norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
        for name, grad in zip(trained, grads, strict=True):
            expected[name] += grad * min(1.0, 0.1 / float(norm))
    clipper = make_clipper(
        model, engine="onepass", rule="flat", max_grad_norm=0.1, views_per_unit=1
    )
    losses_V = clipper.module(images).square().mean(1)
    clipper.backward(losses_V, torch.ones(3))
    for name, parameter in trained.items():
        torch.testing.assert_close(parameter.summed_grad, expected[name], rtol=1e-11, atol=1e-13)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert all(getattr(p, "summed_grad", None) is None and p.grad is None for p in frozen)


@pytest.mark.parametrize("conv_mlp", [True, False])
def test_lora_starts_at_the_model_and_merges_back_into_plain_timm(conv_mlp: bool) -> None:
    plain = convnext(conv_mlp=conv_mlp)
    model = copy.deepcopy(plain)
    state = torch.get_rng_state()
    select_trainable(model, trainable="lora", lora_rank=4)
    assert torch.equal(state, torch.get_rng_state())
    images = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(model(images), plain(images))
    assert set(plain.state_dict()) < set(model.state_dict())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("up.weight"):
                parameter.normal_()
    trained = model(images)
    assert not torch.allclose(trained, plain(images))
    merge_lora(model)
    assert set(model.state_dict()) == set(plain.state_dict())
    torch.testing.assert_close(model(images), trained, rtol=1e-4, atol=1e-5)


def test_bad_choices_are_named() -> None:
    with pytest.raises(UserError, match="Did you mean 'head'"):
        select_trainable(convnext(), trainable="haed")
    with pytest.raises(UserError, match=r"model\.lora_rank=0"):
        select_trainable(convnext(), trainable="lora", lora_rank=0)
