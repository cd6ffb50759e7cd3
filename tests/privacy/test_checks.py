"""What voids the guarantee is refused, with the module or setting named and a way out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from opacus.validators import ModuleValidator
from torch import nn

from dpmed.errors import UserError
from dpmed.privacy.checks import modules_that_mix, refuse_unsafe


def safe_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), nn.Flatten(), nn.LayerNorm(8)
    )


class RenamedBatchNorm(nn.BatchNorm2d):
    """What timm does: a subclass, which Opacus' validator does not know."""


class Whitening(nn.BatchNorm2d):
    """As above, under a name that tells nothing."""


class FrozenBatchNorm2d(nn.Module):
    """Constants that are never updated, as torchvision and timm ship them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(8))


class RunningScale(nn.Module):
    """A norm of one's own that remembers the data."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(8))


def test_a_safe_model_passes() -> None:
    refuse_unsafe(safe_model(), precision="32-true", pos_weight=[1.0, 3])
    refuse_unsafe(nn.Sequential(FrozenBatchNorm2d()), precision="bf16-mixed")


@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm1d(8),
        nn.BatchNorm2d(8),
        nn.BatchNorm3d(8),
        nn.SyncBatchNorm(8),
        nn.LazyBatchNorm2d(),
        nn.BatchNorm2d(8, affine=False),
        nn.BatchNorm2d(8).requires_grad_(False),
        nn.BatchNorm2d(8).eval(),
        nn.BatchNorm2d(8, track_running_stats=False),
        RenamedBatchNorm(8),
        Whitening(8, affine=False, track_running_stats=False),
        nn.InstanceNorm2d(8, track_running_stats=True),
        RunningScale(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_modules_that_mix_samples_are_named(module: nn.Module) -> None:
    model = nn.Sequential(safe_model(), nn.Sequential(nn.ReLU(), module))
    assert [name for name, _ in modules_that_mix(model)] == ["1.1"]
    with pytest.raises(UserError, match=rf"1\.1: {type(module).__name__}.*GroupNorm"):
        refuse_unsafe(model, precision="32-true")


@pytest.mark.opacus_defect
def test_opacus_passes_over_subclasses_and_frozen_batch_norms() -> None:
    for module in (RenamedBatchNorm(8), nn.BatchNorm2d(8).requires_grad_(False)):
        assert ModuleValidator.is_valid(nn.Sequential(nn.Conv2d(1, 8, 3), module))


def test_what_opacus_refuses_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4))
    with pytest.raises(UserError, match="1: LSTM"):
        refuse_unsafe(model, precision="32-true")


@pytest.mark.parametrize("precision", ["16-mixed", "16-true", "fp16"])
def test_fp16_is_refused_for_its_loss_scaler(precision: str) -> None:
    with pytest.raises(UserError, match="loss scaler"):
        refuse_unsafe(safe_model(), precision=precision)


def test_other_precisions() -> None:
    for precision in ("32-true", "64-true", "bf16-mixed"):
        refuse_unsafe(safe_model(), precision=precision)
    with pytest.raises(UserError, match="8 bits"):
        refuse_unsafe(safe_model(), precision="bf16-true")
    with pytest.raises(UserError, match="Did you mean 'bf16-mixed'"):
        refuse_unsafe(safe_model(), precision="bf16-mixd")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulate_grad_batches": 4}, "accumulate_grad_batches=4"),
        ({"sampler": torch.utils.data.SequentialSampler([1])}, "sampler=SequentialSampler"),
        ({"num_devices": 2}, "num_devices=2"),
        ({"pos_weight": "balanced"}, "pos_weight"),
        ({"pos_weight": torch.tensor([2.0])}, "pos_weight"),
        ({"pos_weight": np.array([2.0])}, "pos_weight"),
        ({"pos_weight": [np.float64(2.0)]}, "pos_weight"),
        ({"pos_weight": [1.0, 0.0]}, "pos_weight"),
        ({"pos_weight": [float("inf")]}, "pos_weight"),
    ],
)
def test_settings_that_void_the_guarantee_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        refuse_unsafe(safe_model(), precision="32-true", **settings)
