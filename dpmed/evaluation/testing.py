"""Hypothesis tests on paired bootstrap differences: superiority, equivalence, many at once.

Small functions of an array of differences, one per resample. `comparison.py` applies them to two
models; the sweep page applies the last one to a whole declared family.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import false_discovery_control

from dpmed.errors import UserError


def two_sided_p(differences_R: np.ndarray) -> float:
    """Never 0: 2 min((1 + #{d <= 0}) / (R + 1), (1 + #{d >= 0}) / (R + 1)), at most 1."""
    at_most = _tail(differences_R <= 0)
    at_least = _tail(differences_R >= 0)
    return min(1.0, 2 * min(at_most, at_least))


def equivalence(differences_R: np.ndarray, *, margin: float, level: float = 0.05) -> dict[str, Any]:
    """Two one-sided tests (TOST) of |difference| < margin.

    Args:
        differences_R: one a resample.
        margin: positive, declared before the data were seen, in the units of the metric.
        level: of each one-sided test.

    Returns:
        `margin`, the larger of both p, whether equivalence is shown at the level, and whether at
        least non-inferiority (difference above -margin) is.

    Raises:
        UserError: the margin is not positive.
    """
    if not margin > 0:
        raise UserError(f"margin={margin}: equivalence needs a positive margin, such as 0.02.")
    not_below = _tail(differences_R <= -margin)
    not_above = _tail(differences_R >= margin)
    return {
        "margin": margin,
        "p_value": max(not_below, not_above),
        "equivalent": max(not_below, not_above) < level,
        "non_inferior": not_below < level,
    }


def control_false_discoveries(
    p_values: Mapping[str, float], *, dependence: str = "any"
) -> dict[str, float]:
    """Adjusted p of every member of a declared family.

    Args:
        p_values: the whole family by name, whether significant or not.
        dependence: `any` (Benjamini-Yekutieli) or `positive` (Benjamini-Hochberg, for independent
            or positively dependent tests).
    """
    methods = {"any": "by", "positive": "bh"}
    if dependence not in methods:
        raise UserError(f"dependence={dependence}: choose one of {', '.join(methods)}.")
    if not p_values:
        return {}
    adjusted = false_discovery_control(list(p_values.values()), method=methods[dependence])
    return {name: float(value) for name, value in zip(p_values, adjusted, strict=True)}


def _tail(counted_R: np.ndarray) -> float:
    return float((1 + counted_R.sum()) / (len(counted_R) + 1))
