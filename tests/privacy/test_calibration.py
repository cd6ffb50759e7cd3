"""The noise meets the budget: never above the target, hardly below, or a message that helps."""

from __future__ import annotations

import warnings

import pytest
import torch
from opacus import PrivacyEngine

from dpmed.errors import UserError
from dpmed.privacy import calibration
from dpmed.privacy.accounting import Mechanism, epsilon_pld
from dpmed.privacy.calibration import LARGEST_NOISE_MULTIPLIER, calibrate_noise_multiplier
from dpmed.privacy.cross_check import epsilon_prv

GRID = [
    (0.1, 1e-5, 0.05, 1000),
    (0.5, 1e-6, 0.01, 500),
    (1.0, 1e-5, 0.25, 100),
    (1.0, 1e-5, 0.128, 300),
    (2.0, 1e-4, 1.0, 50),
    (3.0, 6e-6, 0.01, 3000),
    (3.0, 1e-9, 0.1, 7),
    (8.0, 1e-5, 0.128, 300),
    (8.0, 1e-5, 0.004, 20_000),
    (8.0, 1e-3, 0.5, 1),
    (20.0, 1e-5, 0.3, 100),
    (50.0, 1e-5, 0.1, 100),
]


@pytest.mark.parametrize(("target", "delta", "sample_rate", "num_steps"), GRID)
def test_epsilon_is_at_most_the_target_and_uses_it(
    target: float, delta: float, sample_rate: float, num_steps: int
) -> None:
    noise_multiplier = calibrate_noise_multiplier(
        target_epsilon=target, delta=delta, sample_rate=sample_rate, num_steps=num_steps
    )
    epsilon = epsilon_pld(
        noise_multiplier=noise_multiplier,
        sample_rate=sample_rate,
        num_steps=num_steps,
        delta=delta,
    )
    assert 0.998 * target <= epsilon <= target


def test_the_second_accountant_finds_no_more_than_the_target() -> None:
    """PRV adds its error bound of .001 to its answer, and has another of that size."""
    noise_multiplier = calibrate_noise_multiplier(
        target_epsilon=2.0, delta=1e-5, sample_rate=0.02, num_steps=500
    )
    steps = Mechanism(noise_multiplier=noise_multiplier, sample_rate=0.02, num_steps=500)
    assert epsilon_prv(steps, delta=1e-5, epsilon_error=0.001) <= 2.0 + 0.002


def test_the_result_is_rounded_up_to_five_digits() -> None:
    for value in (1.23456, 1.234561, 0.999999, 12.3456001, 123.45, 0.30000001):
        rounded = calibration._round_up(value)
        assert value <= rounded <= value * 1.0001
        assert float(f"{rounded:.5g}") == rounded


def test_a_budget_above_the_least_noise_takes_the_least_noise() -> None:
    noise_multiplier = calibrate_noise_multiplier(
        target_epsilon=1000.0, delta=1e-5, sample_rate=0.1, num_steps=20
    )
    assert noise_multiplier == calibration.SMALLEST_NOISE_MULTIPLIER


def test_an_unreachable_budget_says_what_is_reachable() -> None:
    with pytest.raises(UserError) as caught:
        calibrate_noise_multiplier(target_epsilon=0.001, delta=1e-5, sample_rate=0.1, num_steps=300)
    message = str(caught.value)
    assert "epsilon=0.001 is not reachable in num_steps=300" in message
    reachable = epsilon_pld(
        noise_multiplier=LARGEST_NOISE_MULTIPLIER, sample_rate=0.1, num_steps=300, delta=1e-5
    )
    assert f"{reachable:.4g}" in message
    num_steps = int(message.split("at most ")[-1].split(" step")[0])
    assert 1 <= num_steps < 300
    for steps, reaches in ((num_steps, True), (num_steps + 1, False)):
        epsilon = epsilon_pld(
            noise_multiplier=LARGEST_NOISE_MULTIPLIER,
            sample_rate=0.1,
            num_steps=steps,
            delta=1e-5,
        )
        assert (epsilon <= 0.001) == reaches


def test_a_budget_that_one_step_exceeds_says_so() -> None:
    with pytest.raises(UserError, match="one step is too much"):
        calibrate_noise_multiplier(target_epsilon=1e-9, delta=1e-5, sample_rate=0.9, num_steps=2)


@pytest.mark.parametrize("target", [0.0, -1.0, float("inf"), float("nan")])
def test_a_senseless_target_is_refused(target: float) -> None:
    with pytest.raises(UserError, match="target_epsilon"):
        calibrate_noise_multiplier(target_epsilon=target, delta=1e-5, sample_rate=0.1, num_steps=10)


@pytest.mark.opacus_defect
def test_opacus_overshoots_where_dpmed_does_not() -> None:
    """Opacus derives the rate from the loader's length before and after it rebuilds the loader.

    99 batches are calibrated as int(1 / (1/99)) = 98 steps at rate 1/99, and accounted at 1/98.
    """
    model = torch.nn.Linear(2, 1)
    data = torch.utils.data.TensorDataset(torch.zeros(990, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = PrivacyEngine(accountant="prv")
        _, optimizer, loader = engine.make_private_with_epsilon(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            data_loader=torch.utils.data.DataLoader(data, batch_size=10),
            target_epsilon=2.0,
            target_delta=1e-5,
            epochs=1,
            max_grad_norm=1.0,
        )
    for parameter in optimizer.params:
        parameter.grad_sample = torch.zeros(1, *parameter.shape)
    for _ in range(len(loader)):
        optimizer.step_hook(optimizer)
    assert engine.get_epsilon(1e-5) > 2.01
    ((noise_multiplier, sample_rate, num_steps),) = engine.accountant.history
    theirs = epsilon_pld(
        noise_multiplier=noise_multiplier,
        sample_rate=sample_rate,
        num_steps=num_steps,
        delta=1e-5,
    )
    assert theirs == pytest.approx(2.004, abs=5e-4)
    ours = calibrate_noise_multiplier(
        target_epsilon=2.0, delta=1e-5, sample_rate=1 / 99, num_steps=99
    )
    assert epsilon_pld(noise_multiplier=ours, sample_rate=1 / 99, num_steps=99, delta=1e-5) <= 2.0
