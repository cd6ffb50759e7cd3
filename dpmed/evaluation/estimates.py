"""One number of `metrics.json`: its value, its interval, its counts, or why there is none.

Discrimination, fairness and calibration first plan their quantities: they register them with the
bootstrap and return a nested dictionary whose leaves are `Planned`. After one bootstrap for all of
them, `resolve` turns the leaves into the five fields of the file format. Nothing that was planned
is ever dropped: what cannot be estimated becomes null with a reason.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dpmed.evaluation.bootstrap import Draws

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
    """

    key: Hashable | None
    num_positive: int
    num_negative: int
    reason: str | None = None
    value: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def resolve(planned: Any, draws: Mapping[Hashable, Draws], *, confidence: float) -> Any:
    """Replaces every `Planned` leaf by its entry in the file format."""
    if isinstance(planned, Planned):
        return _entry(planned, draws, confidence)
    if isinstance(planned, dict):
        return {key: resolve(value, draws, confidence=confidence) for key, value in planned.items()}
    return planned


def not_estimable(what: str) -> str:
    """The one wording of a reason."""
    return f"not estimable: {what}"


def _entry(planned: Planned, draws: Mapping[Hashable, Draws], confidence: float) -> dict[str, Any]:
    value = low = high = None
    reason, num_redrawn = planned.reason, 0
    if reason is None:
        drawn = draws[planned.key]
        value = planned.value if planned.value is not None else drawn.point
        num_redrawn = drawn.num_redrawn
        if not math.isfinite(value):
            value, reason = None, not_estimable("undefined on this table")
        elif drawn.is_complete:
            low, high = drawn.interval(confidence)
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
    }
    if reason is not None:
        entry["reason"] = reason
    if num_redrawn:
        entry["num_redrawn"] = num_redrawn
    return entry


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{SIGNIFICANT_DIGITS}g}")
