"""Opacus drives the PLD accountant through its own registry, hook and state."""

from __future__ import annotations

import math

import pytest
import torch
from opacus.accountants import create_accountant
from opacus.optimizers import DPOptimizer

from dpmed.privacy.accounting import epsilon_pld
from dpmed.privacy.opacus_accountant import PLDAccountant


def test_opacus_finds_it_by_name() -> None:
    assert isinstance(create_accountant("pld"), PLDAccountant)


def test_the_optimizers_step_hook_advances_it_once_a_step() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = DPOptimizer(
        torch.optim.SGD([parameter], lr=0.1),
        noise_multiplier=1.1,
        max_grad_norm=1.0,
        expected_batch_size=4,
    )
    accountant = PLDAccountant()
    optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=0.02))
    for _ in range(5):
        parameter.grad_sample = torch.ones(4, 3)
        optimizer.step()
        optimizer.zero_grad()
    assert accountant.history == [(1.1, 0.02, 5)]
    assert len(accountant) == 5
    assert accountant.get_epsilon(1e-5) == epsilon_pld(
        noise_multiplier=1.1, sample_rate=0.02, num_steps=5, delta=1e-5
    )


def test_its_state_travels_in_a_checkpoint() -> None:
    accountant = PLDAccountant()
    for rate in (0.02, 0.02, 0.03):
        accountant.step(noise_multiplier=1.0, sample_rate=rate)
    restored = PLDAccountant()
    restored.load_state_dict(accountant.state_dict())
    assert restored.history == [(1.0, 0.02, 2), (1.0, 0.03, 1)]
    assert restored.get_epsilon(1e-5) == accountant.get_epsilon(1e-5)


def test_before_the_first_step_nothing_is_spent_and_without_noise_everything() -> None:
    accountant = PLDAccountant()
    assert accountant.get_epsilon(1e-5) == 0
    accountant.step(noise_multiplier=0.0, sample_rate=0.5)
    assert accountant.get_epsilon(1e-5) == math.inf


def test_unlike_prv_it_is_not_above_the_calibrated_target() -> None:
    accountant = PLDAccountant()
    accountant.history = [(1.5436, 0.128, 300)]
    assert accountant.get_epsilon(1e-5) <= 8.0
    assert create_accountant("prv").mechanism() == "prv"
    prv = create_accountant("prv")
    prv.history = accountant.history
    assert prv.get_epsilon(1e-5) == pytest.approx(8.01, abs=0.002)
