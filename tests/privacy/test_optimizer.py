"""The private optimizer: noise by step number, scaling, resume, misuse, and Lightning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dpmed.privacy.optimizer import SecretNoiseOptimizer


class NumberedNoise:
    """Deterministic stand-in for the secret stream: a function of purpose and step."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def normal(self, purpose: str, step: int, count: int) -> np.ndarray:
        assert purpose == "noise"
        self.steps.append(step)
        return np.random.default_rng(step).standard_normal(count)


def make_optimizer(model: nn.Module, noise: NumberedNoise, **kwargs: float) -> SecretNoiseOptimizer:
    settings = {"noise_multiplier": 2.0, "max_grad_norm": 0.5, "expected_batch_size": 4}
    inner = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    return SecretNoiseOptimizer(inner, noise=noise, **{**settings, **kwargs})


def test_one_step_is_sum_plus_noise_over_expected_batch_size() -> None:
    model, noise = nn.Linear(3, 2).double(), NumberedNoise()
    optimizer = make_optimizer(model, noise)
    before = [p.detach().clone() for p in model.parameters()]
    sums = [torch.randn_like(p) for p in model.parameters()]
    for parameter, total in zip(model.parameters(), sums, strict=True):
        parameter.summed_grad = total.clone()
    optimizer.step()
    normals = torch.from_numpy(NumberedNoise().normal("noise", 0, 8)).split([6, 2])
    for parameter, old, total, normal in zip(
        model.parameters(), before, sums, normals, strict=True
    ):
        expected = old - (total + normal.view_as(old) * 2.0 * 0.5) / 4
        torch.testing.assert_close(parameter, expected, rtol=0, atol=1e-15)


def test_an_empty_draw_still_adds_noise_and_takes_a_step_number() -> None:
    model, noise = nn.Linear(3, 2), NumberedNoise()
    optimizer = make_optimizer(model, noise)
    before = model.weight.detach().clone()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.step()
    assert noise.steps == [0, 1]
    assert not torch.equal(before, model.weight)


def test_a_sum_is_never_used_twice() -> None:
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(model, NumberedNoise())
    optimizer.step()
    with pytest.raises(ValueError, match="zero_grad"):
        optimizer.step()


def test_resume_from_a_state_dict_is_bit_for_bit() -> None:
    def run(model: nn.Module, optimizer: SecretNoiseOptimizer, steps: int) -> None:
        for _ in range(steps):
            for parameter in model.parameters():
                parameter.summed_grad = parameter.detach().clone()
            optimizer.step()
            optimizer.zero_grad()

    torch.manual_seed(0)
    whole = nn.Linear(3, 2)
    first = nn.Linear(3, 2)
    first.load_state_dict(whole.state_dict())
    run(whole, make_optimizer(whole, NumberedNoise()), 5)
    optimizer = make_optimizer(first, NumberedNoise())
    run(first, optimizer, 2)
    second = nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    resumed = make_optimizer(second, NumberedNoise())
    resumed.load_state_dict(optimizer.state_dict())
    run(second, resumed, 3)
    assert torch.equal(whole.weight, second.weight)


def test_a_state_without_a_step_number_is_refused() -> None:
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(model, NumberedNoise())
    with pytest.raises(KeyError, match="logical_step"):
        optimizer.load_state_dict(optimizer.original_optimizer.state_dict())


def test_step_hook_and_scheduler_see_one_call_a_logical_step() -> None:
    model, calls = nn.Linear(3, 2), []
    optimizer = make_optimizer(model, NumberedNoise())
    optimizer.attach_step_hook(lambda opt: calls.append(opt.logical_step))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    for _ in range(3):
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    assert calls == [1, 2, 3]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.25)
