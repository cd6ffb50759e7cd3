"""Correlations over labels or over runs, each with its interval and its n.

Over labels, as P3 reports them: the AUROC drop of a private run against its non-private twin's
AUROC and against the number of positives. Over the runs of a sweep: end-to-end utility,
utilisation gap, displacement and dimension, pooled and within data set or initialisation. A few
runs make wide intervals, and runs of one sweep are not a random sample of anything: descriptive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from dpmed.errors import UserError, did_you_mean
from dpmed.evaluation.estimates import not_estimable

METHODS = ("pearson", "spearman")


def correlate(
    x: Sequence[float] | np.ndarray | pd.Series,
    y: Sequence[float] | np.ndarray | pd.Series,
    *,
    method: str,
    groups: Sequence[Any] | None = None,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Correlation of two series with an interval on Fisher's scale.

    Args:
        x: one value a label or run; pairs with a missing value are left out.
        y: likewise.
        method: `pearson`, or `spearman` (ranks over all pairs).
        groups: the correlation within these groups: both series lose their groups' means.
        confidence: of the interval.

    Returns:
        `value`, `ci_low`, `ci_high`, `n`; null with a reason where n is too small or a series
        does not vary.

    Source: Fisher 1915; Bonett and Wright 2000 for the variance of Spearman's.
    """
    if method not in METHODS:
        raise UserError(
            f"method={method}: choose one of {', '.join(METHODS)}.{did_you_mean(method, METHODS)}"
        )
    pairs = np.array([np.asarray(x, float), np.asarray(y, float)])
    complete = np.isfinite(pairs).all(axis=0)
    pairs, names = pairs[:, complete], np.zeros(int(complete.sum()), int)
    if groups is not None:
        names = np.unique(np.asarray(groups, str)[complete], return_inverse=True)[1]
    if method == "spearman" and pairs.size:
        pairs = rankdata(pairs, axis=1)
    return _fisher(_centred(pairs, names), len(np.unique(names)), method, confidence)


def correlate_runs(
    runs: pd.DataFrame,
    *,
    quantities: Sequence[str],
    within: Sequence[str] = ("dataset", "initialisation"),
    confidence: float = 0.95,
) -> list[dict[str, Any]]:
    """Every pair of quantities by both methods, pooled and within; one row each.

    Args:
        runs: one row a run.
        quantities: its columns to correlate, such as `end_to_end_utility` and `displacement`.
        within: its columns to hold fixed, one at a time.
        confidence: of the intervals.

    Returns:
        Rows of `x`, `y`, `method`, `within` (`pooled` or the column) and `correlate`'s fields.
    """
    missing = [name for name in (*quantities, *within) if name not in runs.columns]
    if missing:
        found = [str(column) for column in runs.columns]
        raise UserError(
            f"The table of runs has no column {missing[0]!r}.{did_you_mean(missing[0], found)} "
            f"It has: {', '.join(found)}."
        )
    held: dict[str, Any] = {"pooled": None} | {name: runs[name].to_numpy() for name in within}
    return [
        {"x": x, "y": y, "method": method, "within": name}
        | correlate(runs[x], runs[y], method=method, groups=groups, confidence=confidence)
        for x, y in combinations(quantities, 2)
        for method in METHODS
        for name, groups in held.items()
    ]


def correlate_drops(
    private: Mapping[str, Any], reference: Mapping[str, Any], *, confidence: float = 0.95
) -> dict[str, dict[str, Any]]:
    """Pearson correlation over labels of the AUROC drop, as in P3.

    Args:
        private: `splits.<split>.auroc` of the private run's metrics.
        reference: the same of its non-private twin.
        confidence: of the intervals.

    Returns:
        `drop_with_reference_auroc` and `drop_with_num_positive`.

    Source: arXiv 2302.01622.
    """
    labels = [
        label
        for label, entry in reference.items()
        if label not in ("macro", "micro")
        and entry["value"] is not None
        and private.get(label, {}).get("value") is not None
    ]
    drops = [reference[label]["value"] - private[label]["value"] for label in labels]
    against = {
        "drop_with_reference_auroc": [reference[label]["value"] for label in labels],
        "drop_with_num_positive": [reference[label]["num_positive"] for label in labels],
    }
    return {
        name: correlate(drops, values, method="pearson", confidence=confidence)
        for name, values in against.items()
    }


def _centred(pairs: np.ndarray, names: np.ndarray) -> np.ndarray:
    sizes = np.bincount(names)
    means = np.array([np.bincount(names, weights=values) / sizes for values in pairs])
    return pairs - means[:, names]


def _fisher(centred: np.ndarray, num_groups: int, method: str, confidence: float) -> dict[str, Any]:
    n = centred.shape[1]
    freedom = n - num_groups - 2
    spreads = np.sqrt(np.sum(centred**2, axis=1))
    empty = {"value": None, "ci_low": None, "ci_high": None, "n": n}
    if freedom < 1:
        return {**empty, "reason": not_estimable(f"{n} pairs in {num_groups} groups are too few")}
    if (spreads <= 1e-12 * np.sqrt(n)).any():
        return {**empty, "reason": not_estimable("one of the two does not vary")}
    value = float(np.clip(centred[0] @ centred[1] / spreads.prod(), -1, 1))
    variance = (1 + value**2 / 2 if method == "spearman" else 1) / freedom
    half = norm.ppf((1 + confidence) / 2) * np.sqrt(variance)
    with np.errstate(divide="ignore"):
        low, high = np.tanh(np.arctanh(value) + np.array([-half, half]))
    return {"value": value, "ci_low": float(low), "ci_high": float(high), "n": n}
