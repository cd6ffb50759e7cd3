"""One number of `metrics.json`: its value, its interval, its counts, or why there is none.

Discrimination, fairness and calibration first plan their quantities: they register them with the
bootstrap and return a nested dictionary whose leaves are `Planned`. After one bootstrap for all of
them, `resolve` turns the leaves into the five fields of the file format. Nothing that was planned
is ever dropped: what cannot be estimated becomes null with a reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dpmed.evaluation.bootstrap import Draws

CURVE_DECIMALS = 5
SIGNIFICANT_DIGITS = 9  # a float32 score carries seven; more only makes the file longer


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A quantity to be estimated.

    Args:
        key: its name in the bootstrap; None where there is nothing to compute.
        num_positive: positive images behind it.
        num_negative: negative images behind it.
        reason: why it is not estimable; None when it is.
        value: the point estimate, where another library has computed it; otherwise the
            bootstrap's own value on the table.
        extra: further fields of this entry.
        summarise: further fields from its values on the resamples, such as a p value.
        reflected: whether its interval is the reflected one (`bootstrap.Draws.interval`).
    """

    key: Hashable | None
    num_positive: int
    num_negative: int
    reason: str | None = None
    value: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    summarise: Callable[[np.ndarray], dict[str, Any]] | None = None
    reflected: bool = False


@dataclass(frozen=True, kw_only=True)
class PlannedCurve:
    """A curve with a pointwise band, for a plot.

    Args:
        key: its name in the bootstrap, a series of [K, R]; None where there is no curve.
        name: the field that holds the curve's own values; the band is ci_low and ci_high.
        fields: the lists of length K that go with it.
        reason: why there is no curve; None when there is one.
    """

    key: Hashable | None
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None


def resolve(planned: Any, draws: Mapping[Hashable, Draws], *, confidence: float) -> Any:
    """Replaces every `Planned` leaf by its entry in the file format."""
    if isinstance(planned, Planned):
        return _entry(planned, draws, confidence)
    if isinstance(planned, PlannedCurve):
        return _curve(planned, draws, confidence)
    if isinstance(planned, dict):
        return {key: resolve(value, draws, confidence=confidence) for key, value in planned.items()}
    return planned


def not_estimable(what: str) -> str:
    """The one wording of a reason."""
    return f"not estimable: {what}"


def _entry(planned: Planned, draws: Mapping[Hashable, Draws], confidence: float) -> dict[str, Any]:
    value = low = high = None
    reason, num_redrawn = planned.reason, 0
    summary: dict[str, Any] = {}
    if reason is None:
        drawn = draws[planned.key]
        value = planned.value if planned.value is not None else float(drawn.point)
        num_redrawn = drawn.num_redrawn
        if not math.isfinite(value):
            value, reason = None, not_estimable("undefined on this table")
        elif drawn.is_complete:
            low, high = drawn.interval(confidence, reflected=planned.reflected)
            summary = planned.summarise(drawn.values_R) if planned.summarise else {}
        else:
            reason = "interval " + not_estimable(
                f"undefined on {num_redrawn} of {num_redrawn + len(drawn.values_R)} resamples"
            )
    entry: dict[str, Any] = {
        "value": _round(value),
        "ci_low": _round(low),
        "ci_high": _round(high),
        "num_positive": planned.num_positive,
        "num_negative": planned.num_negative,
        **planned.extra,
        **summary,
    }
    if reason is not None:
        entry["reason"] = reason
    if num_redrawn:
        entry["num_redrawn"] = num_redrawn
    return entry


def _curve(
    planned: PlannedCurve, draws: Mapping[Hashable, Draws], confidence: float
) -> dict[str, Any]:
    if planned.reason is not None:
        return {planned.name: None, "reason": planned.reason}
    drawn = draws[planned.key]
    columns = {**planned.fields, planned.name: drawn.point}
    if drawn.is_complete:
        columns["ci_low"], columns["ci_high"] = drawn.interval(confidence)
    return {
        name: [round(value.item(), CURVE_DECIMALS) for value in np.asarray(values)]
        for name, values in columns.items()
    }


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{SIGNIFICANT_DIGITS}g}")
