"""The figures of a sweep: AUROC against epsilon over all patients, and by group."""

from __future__ import annotations

import pandas as pd

from dpmed.report.figures import Figure
from dpmed.report.numbers import group_name, slug
from dpmed.report.plot_sweep import Reference, Series, epsilon_auroc_figure
from dpmed.report.sweep_means import MACRO
from dpmed.report.sweep_runs import Sweep


def sweep_figures(sweep: Sweep, means: pd.DataFrame) -> list[Figure]:
    """The plot over all patients first, then one a series and attribute with a line a group.

    Args:
        sweep: the runs, drawn as small rings.
        means: the conditions, drawn as dots with intervals.

    Returns:
        Nothing where no private run has a result.
    """
    private = means[means["epsilon"].notna() & means[MACRO].notna()]
    names = list(dict.fromkeys(private["series"]))
    if not names:
        return []
    lines = [
        Series(
            name=name,
            points=_points(means, name, MACRO),
            reference=_reference(means, name),
            dots=_single_runs(sweep, means, name),
        )
        for name in names
    ]
    title = "AUROC, mean over labels"
    overall = epsilon_auroc_figure(lines, name="epsilon_auroc", title=title)
    return [overall, *(figure for name in names for figure in _by_group(sweep, means, name))]


def _by_group(sweep: Sweep, means: pd.DataFrame, series: str) -> list[Figure]:
    figures = []
    for attribute in dict.fromkeys(attribute for attribute, _ in sweep.groups):
        groups = [group for name, group in sweep.groups if name == attribute]
        lines = [
            Series(
                name=group_name(attribute, group),
                points=_points(means, series, f"group.{attribute}.{group}"),
            )
            for group in groups
        ]
        shown = [line for line in lines if len(line.points)]
        if shown:
            which = f" · {series}" if means["series"].nunique() > 1 else ""
            name = f"epsilon_auroc_{slug(attribute)}_{slug(series)}"
            title = f"AUROC by {attribute}{which}"
            figures.append(epsilon_auroc_figure(shown, name=name, title=title))
    return figures


def _points(means: pd.DataFrame, series: str, column: str) -> pd.DataFrame:
    mine = means[(means["series"] == series) & means["epsilon"].notna() & means[column].notna()]
    columns = {column: "value", f"{column}.low": "low", f"{column}.high": "high"}
    return mine[["epsilon", *columns]].rename(columns=columns).astype(float)


def _reference(means: pd.DataFrame, series: str) -> Reference | None:
    """The same series without DP; the first, where settings of privacy alone tell several apart."""
    without = means[(means["series"] == series) & means["epsilon"].isna() & means[MACRO].notna()]
    if without.empty:
        return None
    value, low, high = without.iloc[0][[MACRO, f"{MACRO}.low", f"{MACRO}.high"]].astype(float)
    return Reference(value=value, low=low, high=high)


def _single_runs(sweep: Sweep, means: pd.DataFrame, series: str) -> list[tuple[float, float]]:
    """The runs behind the means of a series, where a mean stands for several."""
    mine = means[means["series"] == series]
    if (mine["num_seeds"] == 1).all():
        return []
    runs = sweep.runs[sweep.runs["epsilon"].notna() & sweep.runs[MACRO].notna()]
    for setting in sweep.varying:
        runs = runs[runs[setting].isin(mine[setting])]
    return [
        (float(epsilon), float(value)) for epsilon, value in runs[["epsilon", MACRO]].to_numpy()
    ]
