"""The means of a sweep as rows of text, for the page and for Markdown.

Must not average: it formats the means it is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from dpmed.report.numbers import NOT_ESTIMABLE, decimal, group_name, label_name, setting_name
from dpmed.report.sweep_means import MACRO, OVER_SEEDS
from dpmed.report.sweep_runs import Sweep

WITHOUT_DP = "none (no DP)"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A mean and its interval in parentheses; the interval is empty where there is none."""

    value: str
    interval: str

    @property
    def text(self) -> str:
        """Both in one line."""
        return f"{self.value} {self.interval}".rstrip()


@dataclass(frozen=True, kw_only=True)
class ConditionRow:
    """One condition.

    Attributes:
        names: epsilon and the settings that differ, in the order of `setting_names`.
        is_stamped: DP was on, but with a known key: not private.
        labels: one cell a label, the mean over labels last.
        groups: one cell a group, of the mean over labels.
        over_patients: a single run's interval over patients.
    """

    names: list[str]
    num_seeds: int
    interval_over: str
    is_stamped: bool
    labels: list[Cell]
    groups: list[Cell]
    over_patients: str


def setting_names(sweep: Sweep) -> list[str]:
    """Headings of the columns that tell conditions apart."""
    names = [name.removesuffix(".source").removesuffix(".name") for name in sweep.varying]
    return ["Epsilon", *[setting_name(name.split(".")[-1]) for name in names]]


def label_headings(sweep: Sweep) -> list[str]:
    """Headings of `ConditionRow.labels`."""
    return [label_name(label) for label in sweep.labels]


def group_headings(sweep: Sweep) -> list[str]:
    """Headings of `ConditionRow.groups`."""
    return [
        group_name(attribute, group)
        if attribute in ("sex", "age")
        else f"{label_name(attribute)} {group_name(attribute, group)}"
        for attribute, group in sweep.groups
    ]


def condition_rows(sweep: Sweep, means: pd.DataFrame) -> list[ConditionRow]:
    """One row a condition, in the order of the means."""
    return [
        ConditionRow(
            names=[_epsilon(row["epsilon"]), *[str(row[name]) for name in sweep.varying]],
            num_seeds=int(row["num_seeds"]),
            interval_over=str(row["interval_over"]),
            is_stamped=not row["private"] and not pd.isna(row["epsilon"]),
            labels=[_cell(row, f"auroc.{label}") for label in sweep.labels],
            groups=[_cell(row, f"group.{name}.{group}") for name, group in sweep.groups],
            over_patients=_interval(row[f"{MACRO}.patients_low"], row[f"{MACRO}.patients_high"]),
        )
        for _, row in means.iterrows()
    ]


def markdown(sweep: Sweep, means: pd.DataFrame) -> str:
    """The table of conditions, then the runs that are missing from it."""
    headings = [
        *setting_names(sweep),
        "Seeds",
        "AUROC, mean over labels (95 % CI)",
        "Interval over",
        "A single run, over patients",
    ]
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    rows = condition_rows(sweep, means)
    for row in rows:
        macro, seeds = row.labels[-1].text, str(row.num_seeds)
        stamp = " NOT PRIVATE" if row.is_stamped else ""
        cells = [row.names[0] + stamp, *row.names[1:], seeds, macro]
        cells += [row.interval_over, row.over_patients]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    lines += ["", seeds_note(sweep)] if any(row.interval_over == OVER_SEEDS for row in rows) else []
    lines += [""] if sweep.unfinished else []
    lines += [f"- {name}: not collected, {reason}" for name, reason in sweep.unfinished]
    return "\n".join(lines) + "\n"


def seeds_note(sweep: Sweep) -> str:
    """What varies between the seeds of one condition; settings may change the split as well."""
    conditions = sweep.runs.groupby(["epsilon", *sweep.varying], dropna=False)
    if conditions["split_hash"].nunique().max() > 1:
        return "Intervals over seeds say how much training and the drawn cohort vary."
    return "Intervals over seeds say how much training varies on the same test patients."


def _epsilon(value: float | None) -> str:
    return WITHOUT_DP if value is None or pd.isna(value) else f"{value:g}"


def _cell(row: pd.Series, column: str) -> Cell:
    value, low, high = row[column], row[f"{column}.low"], row[f"{column}.high"]
    if value is None or pd.isna(value):
        return Cell(value=NOT_ESTIMABLE, interval="")
    return Cell(value=decimal(value), interval=_interval(low, high))


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return ""
    return f"({decimal(low)}–{decimal(high)})"
