"""mu and regret: exact for a Gaussian, an upper bound for everything else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from dpmed.privacy.accounting import Mechanism, composed_pld, numerical_error
from dpmed.privacy.gaussian_dp import (
    PrivacyProfile,
    gaussian_delta,
    gaussian_dp,
    privacy_profile,
)


def profile_of(noise_multiplier: float, sample_rate: float, num_steps: int) -> PrivacyProfile:
    steps = Mechanism(
        noise_multiplier=noise_multiplier, sample_rate=sample_rate, num_steps=num_steps
    )
    return privacy_profile(
        composed_pld((steps,), coarsen=10),
        smallest_delta=1e-8,
        numerical_error=numerical_error(num_steps),
    )


@pytest.mark.parametrize(("noise_multiplier", "num_steps"), [(10.0, 100), (5.0, 1), (2.0, 9)])
def test_a_gaussian_mechanism_has_its_own_mu_and_no_regret(
    noise_multiplier: float, num_steps: int
) -> None:
    profile = profile_of(noise_multiplier, 1.0, num_steps)
    found = gaussian_dp(profile)
    mu = np.sqrt(num_steps) / noise_multiplier
    assert mu <= found.mu <= 1.005 * mu
    assert found.regret < 0.001
    # Theorem on two unit normals mu apart: the best guess is right with probability Phi(mu / 2).
    assert profile.membership_accuracy == pytest.approx(norm.cdf(mu / 2), abs=2e-4)


@pytest.mark.parametrize(("noise_multiplier", "sample_rate"), [(1.0, 0.01024), (0.6, 0.1)])
def test_the_gaussian_is_no_more_private_than_the_run(
    noise_multiplier: float, sample_rate: float
) -> None:
    profile = profile_of(noise_multiplier, sample_rate, 300)
    found = gaussian_dp(profile)
    between = (profile.epsilon_E[1:] + profile.epsilon_E[:-1]) / 2
    steps = Mechanism(noise_multiplier=noise_multiplier, sample_rate=sample_rate, num_steps=300)
    deltas = np.asarray(composed_pld((steps,)).get_delta_for_epsilon(between))
    assert np.all(gaussian_delta(between, found.mu) >= deltas - 1e-12)
    assert np.any(gaussian_delta(between, 0.98 * found.mu) < deltas)
    assert 0.001 < found.regret < 0.2


def test_the_profile_falls_from_epsilon_zero_to_the_smallest_delta() -> None:
    profile = profile_of(1.0, 0.05, 100)
    assert profile.epsilon_E[0] == 0
    assert np.all(np.diff(profile.delta_E) <= 0)
    assert profile.delta_E[-1] == pytest.approx(1e-8, rel=0.01)
    assert 0.5 < profile.membership_accuracy < 1
