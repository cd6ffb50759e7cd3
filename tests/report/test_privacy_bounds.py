"""Bounds on attackers against the closed forms of the Gaussian mechanism."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from dpmed.report.privacy_bounds import (
    epsilon_points,
    membership_bounds,
    profile_points,
    reconstruction_bounds,
    strongest_attack,
)
from tests.report.conftest import gaussian_delta

MU = 1.3


@pytest.fixture(scope="module")
def profile() -> list[tuple[float, float]]:
    grid = np.linspace(0, 12, 2001)
    return [(float(e), float(d)) for e, d in zip(grid, gaussian_delta(grid, MU), strict=True)]


def test_membership_at_even_odds_is_the_total_variation_bound(
    profile: list[tuple[float, float]],
) -> None:
    even = membership_bounds(profile)[0]
    assert even.bound == pytest.approx(norm.cdf(MU / 2))


def test_membership_bound_is_the_bayes_rule_of_the_gaussian(
    profile: list[tuple[float, float]],
) -> None:
    for row in membership_bounds(profile):
        # Guess "took part" where x > t, with x ~ N(mu, 1) for members and N(0, 1) for others.
        threshold = MU / 2 + np.log((1 - row.prior) / row.prior) / MU
        best = row.prior * norm.sf(threshold - MU) + (1 - row.prior) * norm.cdf(threshold)
        assert best <= row.bound <= best + 1e-3
        assert row.bound >= row.blind


def test_strongest_attack_is_the_gaussian_trade_off(profile: list[tuple[float, float]]) -> None:
    for fpr, tpr in strongest_attack(profile):
        exact = norm.cdf(norm.ppf(fpr) + MU)
        assert exact - 1e-9 <= tpr <= exact + 2e-3


def test_reconstruction_is_the_gaussian_closed_form(profile: list[tuple[float, float]]) -> None:
    for kappa, bound in reconstruction_bounds(profile):
        assert bound == pytest.approx(norm.cdf(norm.ppf(kappa) + MU), rel=1e-3)


def test_coarse_profile_never_understates(profile: list[tuple[float, float]]) -> None:
    coarse = profile[::100]
    for fine_row, coarse_row in zip(
        membership_bounds(profile), membership_bounds(coarse), strict=True
    ):
        assert coarse_row.bound >= fine_row.bound
    for (_, fine_tpr), (_, coarse_tpr) in zip(
        strongest_attack(profile), strongest_attack(coarse), strict=True
    ):
        assert coarse_tpr >= fine_tpr - 1e-12


def test_damaged_points_are_left_out() -> None:
    plan = {"delta_over_epsilon": [[0, 0.5], [1], "x", [2, None]], "epsilon_over_steps": "many"}
    assert profile_points(plan) == [(0.0, 0.5)]
    assert epsilon_points(plan) == []
