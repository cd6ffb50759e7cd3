"""What the plan's privacy profile allows any attacker, in terms that people can picture.

Stands between `plan.json` (points of epsilon and delta, each an upper bound) and the page. Every
bound here follows from those points alone; nothing is accounted again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dpmed.report.run_files import is_number

PRIORS = (0.5, 0.1, 0.01)
GUESSES = (1e-2, 1e-4, 1e-6)
_FPR_GRID = (0.0, 1e-4, 1e-3, 0.01, *(0.02 * step for step in range(1, 51)))


@dataclass(frozen=True, kw_only=True)
class PriorBound:
    """How well membership can be guessed from a prior belief.

    Attributes:
        prior: chance that the unit took part, before the weights are seen.
        blind: share of right guesses without the weights.
        bound: the most with them.
    """

    prior: float
    blind: float
    bound: float

    @property
    def advantage(self) -> float:
        """How many more guesses are right, at most, than without the weights."""
        return self.bound - self.blind


def profile_points(plan: Any) -> list[tuple[float, float]]:
    """Pairs (epsilon, delta) of the plan, ascending in epsilon; empty where it has none."""
    return _pairs(plan.get("delta_over_epsilon"))


def epsilon_points(plan: Any) -> list[tuple[float, float]]:
    """Pairs (steps, epsilon) of the plan; empty where it has none."""
    return _pairs(plan.get("epsilon_over_steps"))


def membership_bounds(profile: Sequence[tuple[float, float]]) -> list[PriorBound]:
    """Right guesses about membership at several priors.

    Guarantee:
        With prior p <= 1/2 the best rule is right with probability
        (1 - p) + p delta(ln((1 - p) / p)), the hockey-stick divergence at the prior odds. delta is
        taken at the next smaller epsilon of the plan, which can only raise it.
    """
    return [
        PriorBound(
            prior=prior,
            blind=1 - prior,
            bound=(1 - prior) + prior * _delta_at(profile, math.log((1 - prior) / prior)),
        )
        for prior in PRIORS
    ]


def reconstruction_bounds(profile: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """For several chances of a lucky blind guess, the most that the weights raise them to.

    Guarantee:
        gamma(kappa) <= min over the plan's points of e^epsilon kappa + delta.

    Source:
        Balle, Cherubin and Hayes 2022, arXiv 2201.04845 (reconstruction robustness).
    """
    return [
        (kappa, min(1.0, *(math.exp(epsilon) * kappa + delta for epsilon, delta in profile)))
        for kappa in GUESSES
    ]


def strongest_attack(profile: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The ROC curve that no membership attack can rise above, as (FPR, TPR).

    Source:
        Dong, Roth and Su 2019, arXiv 1905.02383, proposition 6: every (epsilon, delta) bounds
        TPR <= e^epsilon FPR + delta and TPR <= 1 - e^-epsilon (1 - delta - FPR).
    """
    return [(fpr, _largest_tpr(profile, fpr)) for fpr in _FPR_GRID]


def _largest_tpr(profile: Sequence[tuple[float, float]], fpr: float) -> float:
    steep = min(math.exp(epsilon) * fpr + delta for epsilon, delta in profile)
    flat = min(1 - math.exp(-epsilon) * (1 - delta - fpr) for epsilon, delta in profile)
    return min(1.0, steep, flat)


def _delta_at(profile: Sequence[tuple[float, float]], epsilon: float) -> float:
    return min(delta for known, delta in profile if known <= epsilon + 1e-12)


def _pairs(found: object) -> list[tuple[float, float]]:
    if not isinstance(found, (list, tuple)):
        return []
    return [
        (float(pair[0]), float(pair[1]))
        for pair in found
        if isinstance(pair, (list, tuple))
        and len(pair) == 2
        and is_number(pair[0])
        and is_number(pair[1])
    ]
