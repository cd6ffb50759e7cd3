"""What a number of noisy steps costs: epsilon from privacy loss distributions (PLD).

The PLDs are dp-accounting's: rounded pessimistically, in both directions (one unit added, one
removed), composed by FFT. This is the guarantee that the plan and the ledger quote; Opacus' PRV
only cross-checks it (`cross_check`). Here stand functions of public numbers alone: no data, no
model, no noise. The noise multiplier that meets a budget is found in `calibration`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from dp_accounting.pld import privacy_loss_distribution as pld_library
from scipy import stats

from dpmed.errors import UserError

SMALLEST_DELTA = 1e-10
LARGEST_NUM_STEPS = 10_000_000
_NUM_GRID_POINTS = 100_000
# Composition by FFT in float64 is not exact: against the closed form at sample rate 1, over 10 to
# 1,000,000 steps and many grids, delta came out too small by up to 0.8 x 2^-53 a step. Ten times
# that is taken off delta before epsilon is read.
_ERROR_A_STEP = 8 * 2.0**-53


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """Logical steps of one kind: Poisson sampling, unit sensitivity, Gaussian noise.

    Args:
        noise_multiplier: standard deviation of the noise / sensitivity of the clipped sum.
        sample_rate: probability that a unit takes part in a step.
        num_steps: number of logical steps.
    """

    noise_multiplier: float
    sample_rate: float
    num_steps: int

    def __post_init__(self) -> None:
        _require(self.noise_multiplier > 0, "noise_multiplier", self.noise_multiplier, "> 0")
        _require(0 < self.sample_rate <= 1, "sample_rate", self.sample_rate, "in (0, 1]")
        _require(
            1 <= self.num_steps <= LARGEST_NUM_STEPS and self.num_steps == int(self.num_steps),
            "num_steps",
            self.num_steps,
            f"an integer from 1 to {LARGEST_NUM_STEPS}",
        )


def epsilon_pld(
    *, noise_multiplier: float, sample_rate: float, num_steps: int, delta: float
) -> float:
    """Epsilon of `num_steps` Poisson-subsampled Gaussian steps.

    Guarantee:
        The steps together are (epsilon, delta)-DP for adding or removing one unit, provided that
        each unit takes part independently with probability at most `sample_rate`, contributes a
        vector of norm at most the sensitivity, and the noise is real-valued Gaussian.

    Source:
        Doroshenko et al. 2022, arXiv 2207.04380 (pessimistic discretisation).

    Example:
        >>> round(
        ...     epsilon_pld(noise_multiplier=1, sample_rate=0.01024, num_steps=976, delta=1e-6), 3
        ... )
        2.154
    """
    mechanism = Mechanism(
        noise_multiplier=noise_multiplier, sample_rate=sample_rate, num_steps=num_steps
    )
    return compose_epsilon([mechanism], delta=delta)


def compose_epsilon(mechanisms: Sequence[Mechanism], *, delta: float, coarsen: int = 1) -> float:
    """Epsilon of all the mechanisms together, run on one data set; 0 when there are none."""
    _require_delta(delta)
    if not mechanisms:
        return 0.0
    pld = composed_pld(tuple(mechanisms), coarsen=coarsen)
    return _read_epsilon(pld, delta, sum(mechanism.num_steps for mechanism in mechanisms))


@functools.lru_cache(maxsize=4)
def composed_pld(
    mechanisms: tuple[Mechanism, ...], *, coarsen: int = 1
) -> pld_library.PrivacyLossDistribution:
    """The privacy loss distribution of all the mechanisms together.

    Args:
        mechanisms: at least one.
        coarsen: how many times wider than usual the grid is; still an upper bound, and faster.
    """
    interval = _discretisation(mechanisms) * coarsen
    composed = None
    for mechanism in mechanisms:
        steps = _step_pld(mechanism.noise_multiplier, mechanism.sample_rate, interval)
        part = steps.self_compose(mechanism.num_steps)
        composed = part if composed is None else composed.compose(part)
    return composed


@functools.lru_cache(maxsize=64)
def patient_epsilon(
    *,
    num_images: int,
    noise_multiplier: float,
    sample_rate: float,
    num_steps: int,
    delta: float,
    coarsen: int = 10,
) -> float:
    """Epsilon of a patient with `num_images` images when the unit of the mechanism is the image.

    The number of a patient's images in a step is binomial, and each adds at most the sensitivity
    to the sum, so a step is a Gaussian whose mean is shifted by that number. Takes seconds, the
    fewer the wider the grid (`coarsen`); always an upper bound.

    Guarantee:
        As `epsilon_pld`, for adding or removing all `num_images` images of one patient.

    Source:
        dp-accounting's `MixtureOfGaussiansDpEvent`; with sigma 1, q .01024, 976 steps
        and delta 1e-6: 2.154, 4.620 and 13.217 for 1, 2 and 5 images.
    """
    _require(num_images >= 1, "num_images", num_images, ">= 1")
    _require_delta(delta)
    mechanism = Mechanism(
        noise_multiplier=noise_multiplier, sample_rate=sample_rate, num_steps=num_steps
    )
    if num_images == 1:
        return compose_epsilon([mechanism], delta=delta)
    together = replace(mechanism, sample_rate=min(1.0, num_images * sample_rate))
    counts = np.arange(num_images + 1)
    single_step = pld_library.from_mixture_gaussian_mechanism(
        standard_deviation=noise_multiplier,
        sensitivities=counts.tolist(),
        sampling_probs=stats.binom.pmf(counts, num_images, sample_rate).tolist(),
        value_discretization_interval=_discretisation([together]) * coarsen,
    )
    return _read_epsilon(single_step.self_compose(num_steps), delta, num_steps)


def epsilon_curve(mechanism: Mechanism, *, delta: float, num_points: int = 48) -> EpsilonCurve:
    """Upper bounds of epsilon after some numbers of steps, from 1 to all of them.

    The points are even in the square root of the steps, where epsilon grows about linearly. They
    are computed on a ten times wider grid (fast, slightly high), then capped by the epsilon of the
    whole mechanism, which covers every prefix of it.
    """
    fractions = (np.arange(1, num_points + 1) / num_points) ** 2
    steps = np.unique(np.ceil(mechanism.num_steps * fractions).astype(int))
    total = compose_epsilon([mechanism], delta=delta)
    interval = _discretisation([mechanism]) * 10
    single_step = _step_pld(mechanism.noise_multiplier, mechanism.sample_rate, interval)
    bounds = [_read_epsilon(single_step.self_compose(int(n)), delta, int(n)) for n in steps[:-1]]
    # A longer run covers a shorter one, so the smallest bound to the right holds as well.
    tightened = np.minimum.accumulate(np.array([*bounds, total])[::-1])[::-1]
    return EpsilonCurve(
        num_steps=tuple(int(n) for n in steps), epsilon=tuple(float(e) for e in tightened)
    )


@dataclass(frozen=True, kw_only=True)
class EpsilonCurve:
    """Upper bounds of epsilon: `epsilon[i]` holds up to and including `num_steps[i]` steps."""

    num_steps: tuple[int, ...]
    epsilon: tuple[float, ...]

    def at(self, num_steps: int) -> float:
        """An upper bound of epsilon after `num_steps` steps; a table look-up, from steps alone."""
        _require(num_steps >= 0, "num_steps", num_steps, ">= 0")
        if num_steps == 0:
            return 0.0
        index = int(np.searchsorted(self.num_steps, num_steps))
        return self.epsilon[index] if index < len(self.epsilon) else math.inf


def numerical_error(num_steps: int) -> float:
    """By how much delta may be underestimated after so many steps; a multiple of what was seen."""
    return _ERROR_A_STEP * num_steps


def _read_epsilon(pld: pld_library.PrivacyLossDistribution, delta: float, num_steps: int) -> float:
    error = numerical_error(num_steps)
    if error > 0.1 * delta:
        raise UserError(
            f"delta={delta:g} is too small to be resolved over num_steps={num_steps}: use at least "
            f"{10 * error:.2g}, or fewer steps."
        )
    return float(pld.get_epsilon_for_delta(delta - error))


@functools.lru_cache(maxsize=32)
def _step_pld(
    noise_multiplier: float, sample_rate: float, interval: float
) -> pld_library.PrivacyLossDistribution:
    return pld_library.from_gaussian_mechanism(
        standard_deviation=noise_multiplier,
        sampling_prob=sample_rate,
        value_discretization_interval=interval,
    )


def _discretisation(mechanisms: Sequence[Mechanism]) -> float:
    """Width of the grid of privacy losses: fine for the composition, yet few points for a step.

    Any width gives an upper bound. The scale of the composed losses is the mu of the central limit
    theorem for subsampled Gaussians (Bu et al. 2020, arXiv 1911.11607); a step's losses reach
    about ln(1 + q exp((18 sigma + 1) / (2 sigma^2))), nine standard deviations out.
    """
    mu = math.sqrt(sum(_squared_mu(mechanism) for mechanism in mechanisms))
    fine = min(1e-4, max(1e-7, 10.0 ** (math.floor(math.log10(mu)) - 3)))
    return max(fine, *(_largest_loss(mechanism) / _NUM_GRID_POINTS for mechanism in mechanisms))


def _largest_loss(mechanism: Mechanism) -> float:
    sigma = mechanism.noise_multiplier
    return float(np.logaddexp(0, math.log(mechanism.sample_rate) + (9 + 0.5 / sigma) / sigma))


def _squared_mu(mechanism: Mechanism) -> float:
    exponent = min(mechanism.noise_multiplier**-2, 100.0)
    return mechanism.sample_rate**2 * mechanism.num_steps * math.expm1(exponent)


def _require_delta(delta: float) -> None:
    _require(SMALLEST_DELTA <= delta < 1, "delta", delta, f"from {SMALLEST_DELTA:g} to below 1")


def _require(holds: bool, name: str, value: float, allowed: str) -> None:
    if not holds:
        raise UserError(f"{name}={value} must be {allowed}.")
