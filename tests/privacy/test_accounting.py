"""Epsilon: published anchors, closed forms that it may never undercut, and composition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize
from scipy.stats import norm

from dpmed.errors import UserError
from dpmed.privacy.accounting import (
    Mechanism,
    compose_epsilon,
    composed_pld,
    epsilon_curve,
    epsilon_pld,
    numerical_error,
    patient_epsilon,
)
from dpmed.privacy.gaussian_dp import gaussian_delta

ANCHOR = {"noise_multiplier": 1.0, "sample_rate": 0.01024, "num_steps": 976, "delta": 1e-6}


def test_the_image_anchor_of_the_papers_setting() -> None:
    assert epsilon_pld(**ANCHOR) == pytest.approx(2.154, abs=0.001)


@pytest.mark.parametrize(("num_images", "expected"), [(1, 2.154), (2, 4.620), (5, 13.217)])
def test_a_patient_with_several_images_has_a_larger_epsilon(
    num_images: int, expected: float
) -> None:
    found = patient_epsilon(num_images=num_images, **ANCHOR)
    assert found == pytest.approx(expected, abs=0.001)


def test_a_coarser_patient_epsilon_is_a_little_higher_and_never_lower() -> None:
    fine = patient_epsilon(num_images=2, **ANCHOR)
    coarse = patient_epsilon(num_images=2, coarsen=30, **ANCHOR)
    assert fine <= coarse < 1.002 * fine


def exact_gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon of a mu-Gaussian mechanism (Balle and Wang 2018, arXiv 1805.06530, theorem 8)."""

    def excess(epsilon: float) -> float:
        tail = math.exp(epsilon + norm.logcdf(-epsilon / mu - mu / 2))
        return norm.cdf(-epsilon / mu + mu / 2) - tail - delta

    return optimize.brentq(excess, 0, 500, xtol=1e-12)


@pytest.mark.parametrize("delta", [1e-4, 1e-7, 1e-9])
@pytest.mark.parametrize(("noise_multiplier", "num_steps"), [(5.0, 1), (5.0, 100), (400.0, 50_000)])
def test_without_sampling_epsilon_is_just_above_the_closed_form(
    noise_multiplier: float, num_steps: int, delta: float
) -> None:
    exact = exact_gaussian_epsilon(math.sqrt(num_steps) / noise_multiplier, delta)
    found = epsilon_pld(
        noise_multiplier=noise_multiplier, sample_rate=1.0, num_steps=num_steps, delta=delta
    )
    assert exact <= found <= 1.002 * exact


def test_the_rounding_of_fft_composition_is_covered() -> None:
    """At 50,000 steps dp-accounting's delta is below the closed form by up to 1e-12."""
    steps = Mechanism(noise_multiplier=400.0, sample_rate=1.0, num_steps=50_000)
    mu = math.sqrt(50_000) / 400
    epsilon_E = np.linspace(0, 4.5, 200)
    exact_E = gaussian_delta(epsilon_E, mu)
    found_E = np.asarray(composed_pld((steps,)).get_delta_for_epsilon(epsilon_E))
    assert np.any(found_E < exact_E - 1e-14)
    assert np.all(found_E + numerical_error(50_000) >= exact_E)


def exact_single_step_deltas(sigma: float, rate: float, epsilon: float) -> tuple[float, float]:
    """Closed forms for one sampled step: a unit removed, a unit added (Zhu et al. 2022).

    The likelihood ratio 1 - q + q exp((x - 1/2) / sigma^2) rises in x, so each supremum is at the
    x where it equals e^epsilon or e^-epsilon.
    """

    def threshold(ratio: float) -> float:
        return sigma**2 * math.log((ratio - 1 + rate) / rate) + 0.5

    def with_unit(x: float) -> float:
        return (1 - rate) * norm.sf(x, scale=sigma) + rate * norm.sf(x, loc=1, scale=sigma)

    x = threshold(math.exp(epsilon))
    removed = with_unit(x) - math.exp(epsilon) * norm.sf(x, scale=sigma)
    if math.exp(-epsilon) <= 1 - rate:
        return removed, 0.0
    x = threshold(math.exp(-epsilon))
    added = norm.cdf(x, scale=sigma) - math.exp(epsilon) * (1 - with_unit(x))
    return removed, added


@pytest.mark.parametrize(("sigma", "rate"), [(0.5, 0.1), (1.0, 0.5), (1.0, 0.01), (3.0, 0.9)])
def test_one_sampled_step_is_covered_in_both_directions(sigma: float, rate: float) -> None:
    delta = 1e-4
    epsilon = epsilon_pld(noise_multiplier=sigma, sample_rate=rate, num_steps=1, delta=delta)
    removed, added = exact_single_step_deltas(sigma, rate, epsilon)
    assert removed <= delta * (1 + 1e-9)
    assert added <= delta * (1 + 1e-9)
    assert max(removed, added) > 0.99 * delta


@pytest.mark.parametrize(
    "change", [{"num_steps": 1100}, {"sample_rate": 0.011}, {"noise_multiplier": 0.95}]
)
def test_more_steps_more_sampling_and_less_noise_cost_more(change: dict[str, float]) -> None:
    assert epsilon_pld(**{**ANCHOR, **change}) > 1.01 * epsilon_pld(**ANCHOR)


def test_composing_parts_costs_what_the_whole_costs() -> None:
    half = Mechanism(noise_multiplier=1.0, sample_rate=0.01024, num_steps=488)
    together = compose_epsilon([half, half], delta=1e-6)
    assert together == pytest.approx(epsilon_pld(**ANCHOR), rel=1e-4)


def test_composing_another_run_costs_more_and_less_than_the_sum() -> None:
    one = Mechanism(noise_multiplier=1.0, sample_rate=0.01, num_steps=300)
    other = Mechanism(noise_multiplier=2.0, sample_rate=0.1, num_steps=50)
    epsilons = [compose_epsilon([mechanism], delta=1e-5) for mechanism in (one, other)]
    together = compose_epsilon([one, other], delta=1e-5)
    assert max(epsilons) < together < sum(epsilons)
    assert compose_epsilon([], delta=1e-5) == 0


def test_the_curve_over_steps_is_an_upper_bound_that_ends_at_epsilon() -> None:
    steps = Mechanism(noise_multiplier=1.0, sample_rate=0.05, num_steps=200)
    curve = epsilon_curve(steps, delta=1e-5)
    assert curve.epsilon[-1] == compose_epsilon([steps], delta=1e-5)
    for num_steps in (1, 7, 60, 199, 200):
        exact = epsilon_pld(noise_multiplier=1.0, sample_rate=0.05, num_steps=num_steps, delta=1e-5)
        assert exact <= curve.at(num_steps) <= curve.epsilon[-1]
    values = [curve.at(n) for n in range(201)]
    assert values[0] == 0
    assert np.all(np.diff(values) >= 0)
    assert curve.at(201) == math.inf


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"noise_multiplier": 0.0}, "noise_multiplier=0"),
        ({"noise_multiplier": math.nan}, "noise_multiplier=nan"),
        ({"sample_rate": 0.0}, "sample_rate=0"),
        ({"sample_rate": 1.5}, "sample_rate=1.5"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"num_steps": 2.5}, "num_steps=2.5"),
        ({"delta": 0.0}, "delta=0"),
        ({"delta": 1e-11}, "delta=1e-11"),
        ({"delta": 1.0}, "delta=1"),
        ({"delta": 1e-10, "num_steps": 50_000}, "delta=1e-10 is too small to be resolved"),
    ],
)
def test_impossible_figures_are_refused(change: dict[str, float], named: str) -> None:
    with pytest.raises(UserError, match=named):
        epsilon_pld(**{**ANCHOR, **change})
