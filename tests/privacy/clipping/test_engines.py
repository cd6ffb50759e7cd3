"""The engines are interchangeable, and a run with Opacus itself ends in the same weights."""

from __future__ import annotations

import functools

import pytest
import timm
import torch
import torch.nn.functional as F
from opacus.accountants import PRVAccountant
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from dpmed.privacy.clipping.clipper import CLIPPING_ENGINES, make_clipper
from dpmed.privacy.clipping.reference import CorrectedGradSampleModule
from dpmed.privacy.randomness import SecretStream
from tests.privacy.clipping.conftest import private

NUM_UNITS, EXPECTED_BATCH, SIGMA, CLIP = 40, 4, 0.8, 0.5

# Opacus divides by n + 1e-6 instead of n, which is less than rounding where gradients are large.
LARGE = 1e5


def small_convnext() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(
        "convnext_atto", in_chans=1, num_classes=3, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gamma" in name:
                parameter.fill_(0.5)
    return model.double()


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(NUM_UNITS, 1, 32, 32, generator=generator, dtype=torch.float64)
    return images, (torch.rand(NUM_UNITS, 3, generator=generator) > 0.5).double()


def draws(num_steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    rate = EXPECTED_BATCH / NUM_UNITS
    return [
        torch.nonzero(torch.rand(NUM_UNITS, generator=generator) < rate)[:, 0]
        for _ in range(num_steps)
    ]


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)


@functools.cache
def train_with_dpmed(engine: str, num_steps: int) -> nn.Module:
    model = small_convnext()
    images, targets = data()
    clipper = make_clipper(model, engine=engine, rule="flat", max_grad_norm=CLIP, views_per_unit=1)
    optimizer = private(
        torch.optim.AdamW(model.parameters(), lr=1e-3),
        clipper,
        noise_multiplier=SIGMA,
        expected_batch_size=EXPECTED_BATCH,
    )
    for units in draws(num_steps):
        if len(units):
            logits = clipper.module(images[units])
            clipper.backward(losses(logits, targets[units]), torch.ones(len(units)))
        optimizer.step()
        optimizer.zero_grad()
    return model


class StreamOptimizer(DPOptimizer):
    """Opacus' own optimizer and clipping; only the source of the noise is replaced."""

    stream = SecretStream.from_key(bytes(32))
    steps = 0

    def add_noise(self) -> None:
        sizes = [p.numel() for p in self.params]
        normals = torch.from_numpy(self.stream.normal("noise", self.steps, sum(sizes)))
        parts = (normals * self.noise_multiplier * self.max_grad_norm).split(sizes)
        for parameter, noise in zip(self.params, parts, strict=True):
            parameter.grad = parameter.summed_grad + noise.view_as(parameter)
        self.steps += 1


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_a_whole_run_with_opacus_functorch_ends_in_the_same_weights_and_epsilon() -> None:
    model = small_convnext()
    images, targets = data()
    module = CorrectedGradSampleModule(model, force_functorch=True)
    optimizer = StreamOptimizer(
        torch.optim.AdamW(model.parameters(), lr=1e-3),
        noise_multiplier=SIGMA,
        max_grad_norm=CLIP,
        expected_batch_size=EXPECTED_BATCH,
    )
    accountants = PRVAccountant(), PRVAccountant()
    rate = EXPECTED_BATCH / NUM_UNITS
    optimizer.attach_step_hook(accountants[0].get_optimizer_hook_fn(sample_rate=rate))
    num_steps = 6
    chosen = [units for units in draws(20) if len(units)][:num_steps]
    for units in chosen:
        (LARGE * losses(module(images[units]), targets[units])).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    ours = _train_on(chosen, accountants[1], rate)
    for parameter, other in zip(model.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=0, atol=1e-10)
    assert accountants[0].get_epsilon(1e-3) == accountants[1].get_epsilon(1e-3)


def _train_on(chosen: list[Tensor], accountant: PRVAccountant, rate: float) -> nn.Module:
    model = small_convnext()
    images, targets = data()
    clipper = make_clipper(
        model, engine="onepass", rule="flat", max_grad_norm=CLIP, views_per_unit=1
    )
    optimizer = private(
        torch.optim.AdamW(model.parameters(), lr=1e-3),
        clipper,
        noise_multiplier=SIGMA,
        expected_batch_size=EXPECTED_BATCH,
    )
    optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=rate))
    for units in chosen:
        logits = clipper.module(images[units])
        clipper.backward(LARGE * losses(logits, targets[units]), torch.ones(len(units)))
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.mark.parametrize("engine", [e for e in CLIPPING_ENGINES if e != "onepass"])
def test_twenty_steps_with_either_engine_end_in_the_same_weights(engine: str) -> None:
    ours, reference = train_with_dpmed("onepass", 20), train_with_dpmed(engine, 20)
    start = small_convnext()
    for parameter, other, old in zip(
        ours.parameters(), reference.parameters(), start.parameters(), strict=True
    ):
        assert not torch.equal(parameter, old)
        torch.testing.assert_close(parameter, other, rtol=0, atol=1e-10)
