"""The whole privacy profile of a run, and the one Gaussian that sums it up.

An (epsilon, delta) pair is one point of a curve; two runs with equal pairs can protect unequally.
The profile gives delta for every epsilon, and mu is the Gaussian mechanism that is no more private
at any of them. Works on public numbers alone, for the plan and the report.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from scipy.special import log_ndtr, ndtr, ndtri

# Every eighth point of the profile draws its trade-off curve closely enough.
_STRIDE = 8


@dataclass(frozen=True, kw_only=True)
class PrivacyProfile:
    """delta as a function of epsilon, the worse direction of adding and removing a unit.

    Args:
        epsilon_E: ascending from 0, float64 (E,).
        delta_E: upper bounds, descending, float64 (E,); the last is `smallest_delta`.
        smallest_delta: where the profile ends; below it nothing is claimed.
    """

    epsilon_E: np.ndarray
    delta_E: np.ndarray
    smallest_delta: float

    @property
    def membership_accuracy(self) -> float:
        """Upper bound on right guesses whether a unit took part, for even prior odds.

        The total variation distance is delta at epsilon 0, and the best guess is right with
        probability (1 + that) / 2.
        """
        return float(0.5 + 0.5 * self.delta_E[0])


@dataclass(frozen=True, kw_only=True)
class GaussianDP:
    """A run is mu-Gaussian-DP, and exactly how much that overstates its leak.

    Args:
        mu: distance of the two unit normals that are no harder to tell apart than neighbours.
        regret: by how much both error rates of the best test may exceed the Gaussian's; where it
            is above .01, mu alone is too crude and the profile should be shown.
    """

    mu: float
    regret: float


def privacy_profile(
    pld: PrivacyLossDistribution,
    *,
    smallest_delta: float,
    numerical_error: float,
    num_points: int = 4000,
) -> PrivacyProfile:
    """Evaluate delta on an even grid from epsilon 0 to where delta falls to `smallest_delta`.

    Args:
        pld: of the whole run.
        smallest_delta: where the profile ends.
        numerical_error: added to every delta, so that it stays an upper bound.
        num_points: of the grid.
    """
    largest_epsilon = pld.get_epsilon_for_delta(smallest_delta)
    epsilon_E = np.linspace(0.0, largest_epsilon, num_points)
    delta_E = np.asarray(pld.get_delta_for_epsilon(epsilon_E), dtype=np.float64) + numerical_error
    return PrivacyProfile(
        epsilon_E=epsilon_E, delta_E=np.clip(delta_E, 0.0, 1.0), smallest_delta=smallest_delta
    )


def gaussian_dp(profile: PrivacyProfile) -> GaussianDP:
    """The smallest mu whose Gaussian is no more private than the profile, and its regret.

    Guarantee:
        delta(epsilon) <= max(delta of the mu-Gaussian, smallest_delta) for every epsilon >= 0: each
        interval of the grid is met with the delta of its left end, the epsilon of its right end.

    Source:
        Dong et al. 2019, arXiv 1905.02383; the regret is Gomez et al. 2025, arXiv 2503.10945.
    """
    mu_E = _mu_of_points(profile.epsilon_E[1:], profile.delta_E[:-1])
    mu = float(mu_E.max())
    return GaussianDP(mu=mu, regret=_regret(profile, mu))


def gaussian_delta(epsilon: np.ndarray, mu: float | np.ndarray) -> np.ndarray:
    """Delta of the mu-Gaussian: Phi(-eps/mu + mu/2) - e^eps Phi(-eps/mu - mu/2)."""
    return ndtr(-epsilon / mu + mu / 2) - np.exp(epsilon + log_ndtr(-epsilon / mu - mu / 2))


def _mu_of_points(epsilon_E: np.ndarray, delta_E: np.ndarray) -> np.ndarray:
    """For each point the mu whose Gaussian passes through it, from above, by bisection."""
    low_E, high_E = np.full_like(epsilon_E, 1e-9), np.full_like(epsilon_E, 1.0)
    while np.any(short := gaussian_delta(epsilon_E, high_E) < delta_E):
        high_E = np.where(short, 2 * high_E, high_E)
    for _ in range(60):
        middle_E = (low_E + high_E) / 2
        enough_E = gaussian_delta(epsilon_E, middle_E) >= delta_E
        low_E, high_E = np.where(enough_E, low_E, middle_E), np.where(enough_E, middle_E, high_E)
    return high_E


def _regret(profile: PrivacyProfile, mu: float) -> float:
    """The smallest k with f(a + k) - k <= G_mu(a) for all a, f the profile's trade-off curve."""
    alpha_A = np.concatenate([np.geomspace(1e-9, 0.05, 200), np.linspace(0.05, 1.0, 200)[1:]])
    gaussian_A = ndtr(ndtri(1 - alpha_A) - mu)
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        curve_A = _trade_off(profile, np.minimum(alpha_A + middle, 1.0))
        if np.all(curve_A - middle <= gaussian_A):
            high = middle
        else:
            low = middle
    return high


def _trade_off(profile: PrivacyProfile, alpha_A: np.ndarray) -> np.ndarray:
    """The smallest false negative rate at each false positive rate (Dong et al., prop. 6)."""
    factor_E = np.exp(profile.epsilon_E[::_STRIDE])
    slack_E = 1 - profile.delta_E[::_STRIDE]
    falling_AE = slack_E - factor_E * alpha_A[:, None]
    flat_AE = (slack_E - alpha_A[:, None]) / factor_E
    return np.maximum(0.0, np.maximum(falling_AE.max(axis=1), flat_AE.max(axis=1)))
