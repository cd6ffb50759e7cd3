"""Means over seeds with intervals: runs that differ in their seeds alone become one condition.

The interval is Student's over the seeds' results: it says how much training, and the cohort where
that is drawn anew, varies. With a single seed it is that run's own interval over patients, and
marked so. A value that is not estimable in every run of a condition has no interval.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from dpmed.report.sweep_runs import GEOMETRY, Sweep

OVER_SEEDS, OVER_PATIENTS = "seeds", "patients"
MACRO = "auroc.macro"
GEOMETRY_PREFIX = "geometry."


def condition_means(sweep: Sweep) -> pd.DataFrame:
    """One row a condition, ascending in epsilon, runs without DP last.

    Returns:
        Table with the settings, `series` (their values as one name), `num_seeds`, `interval_over`,
        for every value column its mean, `.low`, `.high`, and for the mean over labels
        `.patients_low`, `.patients_high`: a single run's interval over patients, its ends averaged.
    """
    if sweep.runs.empty:
        return sweep.runs
    keys = ["epsilon", *sweep.varying]
    rows = []
    for values, runs in sweep.runs.groupby(keys, dropna=False, sort=False):
        named = dict(zip(keys, values, strict=True))
        row: dict[str, Any] = {**named, "series": _series(named, sweep.varying)}
        row |= {"num_seeds": len(runs), "private": bool(runs["private"].all())}
        row["interval_over"] = OVER_SEEDS if len(runs) > 1 else OVER_PATIENTS
        for column in value_columns(sweep):
            row |= _mean(runs, column)
        row |= {f"{MACRO}.patients_{end}": runs[f"{MACRO}.{end}"].mean() for end in ("low", "high")}
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values(["series", "epsilon"], na_position="last", ignore_index=True)


def value_columns(sweep: Sweep) -> list[str]:
    """Columns of the table of runs that are averaged: AUROC by label and group, geometry."""
    labels = [f"auroc.{label}" for label in sweep.labels]
    groups = [f"group.{attribute}.{group}" for attribute, group in sweep.groups]
    return labels + groups + [f"{GEOMETRY_PREFIX}{name}" for name in sweep.geometry]


def student_interval(
    values: np.ndarray, *, limits: tuple[float, float] = (0.0, 1.0)
) -> tuple[float, float]:
    """The 95 % interval of a mean of independent results; needs two of them.

    Args:
        values: one a run.
        limits: what the quantity cannot leave; an AUROC's when left out.
    """
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    low, high = float(values.mean() - half), float(values.mean() + half)
    return max(limits[0], low), min(limits[1], high)


def _series(named: dict[str, Any], varying: list[str]) -> str:
    return ", ".join(f"{_short(name)} {named[name]}" for name in varying) or "all runs"


def _short(setting: str) -> str:
    return setting.removesuffix(".source").removesuffix(".name").split(".")[-1].replace("_", " ")


def _mean(runs: pd.DataFrame, column: str) -> dict[str, float | None]:
    low: float | None = None
    high: float | None = None
    values = runs[column].dropna().to_numpy(float) if column in runs else np.array([])
    if len(runs) == 1 and len(values) == 1:
        low, high = runs.iloc[0][f"{column}.low"], runs.iloc[0][f"{column}.high"]
    elif len(values) == len(runs):
        limits = GEOMETRY.get(column.removeprefix(GEOMETRY_PREFIX), (0.0, 1.0))
        low, high = student_interval(values, limits=limits)
    mean = float(values.mean()) if len(values) else None
    return {column: mean, f"{column}.low": low, f"{column}.high": high}
