"""The second accountant agrees over the settings in use, and a wrong epsilon is stopped."""

from __future__ import annotations

import pytest

from dpmed.privacy import cross_check
from dpmed.privacy.accounting import Mechanism, compose_epsilon
from dpmed.privacy.cross_check import AccountantsDisagree, require_agreement

SETTINGS = [
    (1.0, 0.01024, 976, 1e-6),
    (1.5436, 0.128, 300, 1e-5),
    (48.671, 0.05, 1000, 1e-5),
    (385.5, 0.05, 1000, 1e-5),
    (12.264, 1.0, 50, 1e-4),
    (0.41089, 0.1, 100, 1e-5),
]


@pytest.mark.parametrize(("noise_multiplier", "sample_rate", "num_steps", "delta"), SETTINGS)
def test_pld_and_prv_agree(
    noise_multiplier: float, sample_rate: float, num_steps: int, delta: float
) -> None:
    """At its default error PRV reads PLD + .010 (less where epsilon is small)."""
    steps = Mechanism(
        noise_multiplier=noise_multiplier, sample_rate=sample_rate, num_steps=num_steps
    )
    epsilon = compose_epsilon([steps], delta=delta)
    second_opinion = require_agreement(steps, delta=delta, epsilon=epsilon)
    assert second_opinion - epsilon == pytest.approx(min(0.01, 0.1 * epsilon), rel=0.3)


@pytest.mark.parametrize("factor", [0.9, 1.1, float("nan")])
def test_a_wrong_epsilon_is_stopped(factor: float) -> None:
    steps = Mechanism(noise_multiplier=1.0, sample_rate=0.01024, num_steps=976)
    epsilon = compose_epsilon([steps], delta=1e-6)
    with pytest.raises(AccountantsDisagree, match="Nothing was trained"):
        require_agreement(steps, delta=1e-6, epsilon=factor * epsilon)


def test_a_broken_second_accountant_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_check, "epsilon_prv", lambda *args, **kwargs: float("nan"))
    steps = Mechanism(noise_multiplier=1.0, sample_rate=0.01, num_steps=10)
    with pytest.raises(AccountantsDisagree):
        require_agreement(steps, delta=1e-5, epsilon=0.5)
