"""Estimates and their wording: every number of the report is formatted here, in one way.

Stands between the JSON files and the templates. Must not compute a metric.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from markupsafe import Markup, escape

from dpmed.report.run_files import is_number

NOT_ESTIMABLE = "not estimable"
_LABEL_NAMES = {"macro": "Mean over labels", "micro": "All labels pooled"}
_GROUP_NAMES = {("sex", "F"): "Women", ("sex", "M"): "Men"}
_METRIC_NAMES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "tpr": "TPR",
    "fpr": "FPR",
    "f1": "F1",
    "spd": "Accuracy minus that of the other groups",
    "selection_rate": "Share flagged",
    "underdiagnosis": "Underdiagnosis",
    "overdiagnosis": "Overdiagnosis",
    "ece": "ECE",
    "in_the_large": "Calibration in the large",
    "brier": "Brier score",
    "log_loss": "Log-loss",
}
_INTERVAL_IN_TEXT = re.compile(r"\([−\d.]+(?:–| to )[−\d.]+\)")
_PAIR = " & "  # joins the two attributes, and the two groups, of an intersection
_INTERVAL = re.compile(r"^[\[(]?\s*(\d+(?:\.\d+)?)\s*[,–-]\s*(\d+(?:\.\d+)?|inf)\s*[\])]?$")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval and counts, or the reason why there is none."""

    value: float | None
    low: float | None
    high: float | None
    num_positive: int | None
    num_negative: int | None
    reason: str

    @property
    def interval(self) -> str:
        """The interval in parentheses, or nothing."""
        if self.low is None or self.high is None:
            return ""
        # A dash beside a minus sign would be hard to read.
        between = " to " if self.low < 0 else "–"
        return f"({decimal(self.low)}{between}{decimal(self.high)})"

    @property
    def value_text(self) -> str:
        """The value alone."""
        return NOT_ESTIMABLE if self.value is None else decimal(self.value)

    @property
    def text(self) -> str:
        """Value and interval, such as `0.873 (0.851–0.894)`."""
        if self.value is None:
            return NOT_ESTIMABLE
        return f"{decimal(self.value)} {self.interval}".rstrip()

    @property
    def short_reason(self) -> str:
        """The reason without the words that already stand in the place of the value."""
        return self.reason.removeprefix(f"{NOT_ESTIMABLE}: ")

    @property
    def counts(self) -> str:
        """Cases with and without the finding, such as `34 with, 378 without`."""
        if self.num_positive is None or self.num_negative is None:
            return ""
        return f"{self.num_positive:,} with, {self.num_negative:,} without"


def estimate(entry: object) -> Estimate:
    """Reads the five fields that `metrics.json` gives for one quantity.

    Args:
        entry: mapping with `value`, `ci_low`, `ci_high`, `num_positive`, `num_negative` and,
            where the value is null, `reason`; anything else reads as not estimable.
    """
    fields: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {}
    value = _number(fields.get("value"))
    reason = str(fields.get("reason") or ("" if value is not None else "no value was written"))
    return Estimate(
        value=value,
        low=_number(fields.get("ci_low")),
        high=_number(fields.get("ci_high")),
        num_positive=_count(fields.get("num_positive")),
        num_negative=_count(fields.get("num_negative")),
        reason=reason,
    )


def walk_estimates(
    tree: object, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Estimate]]:
    """Every estimate below a part of `metrics.json`, with the names that lead to it."""
    if not isinstance(tree, Mapping):
        return
    if "value" in tree:
        yield path, estimate(tree)
        return
    for name, branch in tree.items():
        yield from walk_estimates(branch, (*path, str(name)))


def decimal(value: float, digits: int = 3) -> str:
    """Fixed digits, with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def at_most(epsilon: float) -> str:
    """Epsilon rounded up, so that no printed figure is better than the guaranteed one."""
    digits = 2 if epsilon >= 1 else 3
    # The inner rounding keeps 8.0 from becoming 8.01 through the binary product.
    return f"{math.ceil(round(epsilon * 10**digits, 6)) / 10**digits:.{digits}f}"


def epsilon_words(epsilon: float | None) -> str:
    """`epsilon 8`, or `no DP` where it is missing."""
    return "no DP" if epsilon is None or math.isnan(epsilon) else f"epsilon {epsilon:g}"


def compact(value: object) -> str:
    """A setting as a reader would write it: 6e-06, 0.0102, 112,120, yes, none."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e9 else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(compact(item) for item in value) or "none"
    return str(value)


def scientific(value: float) -> str:
    """A small number as in print: 6 × 10⁻⁶."""
    mantissa, exponent = f"{value:.2e}".split("e")
    digits = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    mantissa = mantissa.rstrip("0").rstrip(".")
    return (
        f"10{digits}"
        if mantissa == "1"
        else f"{mantissa}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}10{digits}"
    )


def setting_name(name: str) -> str:
    """A setting in words: `num_steps` becomes `Number of steps`."""
    return re.sub(r"^num_", "number of ", name).replace("_", " ").capitalize()


def label_name(label: str) -> str:
    """A label in words: `pleural_effusion` becomes `Pleural effusion`."""
    return _LABEL_NAMES.get(label, label.replace("_", " ").strip().capitalize())


def metric_name(metric: str) -> str:
    """A metric in words."""
    return _METRIC_NAMES.get(metric, metric.replace("_", " ").capitalize())


def group_name(attribute: str, group: str) -> str:
    """A subgroup in words: sex F becomes Women, age [40, 60) becomes 40–59 years."""
    attributes, groups = attribute.split(_PAIR), group.split(_PAIR)
    if len(attributes) > 1 and len(attributes) == len(groups):
        return ", ".join(group_name(*pair) for pair in zip(attributes, groups, strict=True))
    if (attribute, group) in _GROUP_NAMES:
        return _GROUP_NAMES[attribute, group]
    bounds = age_bounds(group) if attribute.startswith("age") else None
    if bounds is None:
        return group.replace("_", " ")
    low, high = bounds
    return f"{low:g} years and over" if high == float("inf") else f"{low:g}–{high - 1:g} years"


def age_bounds(group: str) -> tuple[float, float] | None:
    """The half-open interval that an age group names, in years; None where it names none."""
    match = _INTERVAL.match(group)
    return (float(match[1]), float(match[2])) if match else None


def quiet_intervals(text: str) -> Markup:
    """Escaped text whose intervals stay on one line and step back behind the values."""
    return Markup(_INTERVAL_IN_TEXT.sub(r'<span class="ci">\g<0></span>', str(escape(text))))


def moment(text: str) -> str:
    """An ISO time to the minute; anything else as it is."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{when:%Y-%m-%d %H:%M} {when.tzname() or ''}".rstrip()


def slug(text: str) -> str:
    """A name that is safe as a file name and as an HTML id."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "unnamed"


def _number(value: object) -> float | None:
    return float(value) if is_number(value) else None


def _count(value: object) -> int | None:
    return int(value) if is_number(value) else None
