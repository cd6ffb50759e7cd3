"""The figures of a sweep against epsilon: AUROC over all patients and by group, and geometry."""

from __future__ import annotations

import pandas as pd

from dpmed.report.figures import Figure
from dpmed.report.geometry_section import metric_title
from dpmed.report.numbers import Estimate, estimate, group_name, slug
from dpmed.report.plot_matrix import matrix_figure
from dpmed.report.plot_sweep import Reference, Series, epsilon_figure
from dpmed.report.sweep_means import GEOMETRY_PREFIX, MACRO
from dpmed.report.sweep_runs import GEOMETRY, Sweep


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
            reference=_reference(means, name, MACRO),
            dots=_single_runs(sweep, means, name, MACRO),
        )
        for name in names
    ]
    title = "AUROC, mean over labels"
    overall = epsilon_figure(lines, name="epsilon_auroc", title=title)
    return [overall, *(figure for name in names for figure in _by_group(sweep, means, name))]


def geometry_figures(sweep: Sweep, means: pd.DataFrame) -> list[Figure]:
    """One plot a geometry metric, a line a series; none where no private run measured it."""
    figures = []
    for metric in sweep.geometry:
        column = f"{GEOMETRY_PREFIX}{metric}"
        lines = [
            Series(
                name=name,
                points=_points(means, name, column),
                reference=_reference(means, name, column),
                dots=_single_runs(sweep, means, name, column),
            )
            for name in dict.fromkeys(means["series"])
        ]
        shown = [line for line in lines if len(line.points)]
        if shown:
            title = metric_title(metric)
            name, limits = f"epsilon_{metric}", GEOMETRY[metric]
            figures.append(epsilon_figure(shown, name=name, title=title, limits=limits))
    return figures


def site_figures(sweep: Sweep, means: pd.DataFrame) -> list[Figure]:
    """A heat map of conditions against test sites; none where there are fewer than two sites."""
    sites = [group for attribute, group in sweep.groups if attribute == "site"]
    if len(sites) < 2:
        return []
    cells: dict[tuple[str, str], Estimate] = {}
    for _, row in means.iterrows():
        for site in sites:
            column = f"group.site.{site}"
            ends = {"ci_low": row[f"{column}.low"], "ci_high": row[f"{column}.high"]}
            cells[_condition(row), site] = estimate({"value": row[column], **ends})
    rows = list(dict.fromkeys(name for name, _ in cells))
    title = "AUROC by test site, mean over labels"
    return [matrix_figure(cells, rows=rows, columns=sites, name="sites", title=title)]


def _condition(row: pd.Series) -> str:
    epsilon = "no DP" if pd.isna(row["epsilon"]) else f"epsilon {row['epsilon']:g}"
    return epsilon if row["series"] == "all runs" else f"{epsilon}, {row['series']}"


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
            figures.append(epsilon_figure(shown, name=name, title=title))
    return figures


def _points(means: pd.DataFrame, series: str, column: str) -> pd.DataFrame:
    mine = means[(means["series"] == series) & means["epsilon"].notna() & means[column].notna()]
    columns = {column: "value", f"{column}.low": "low", f"{column}.high": "high"}
    return mine[["epsilon", *columns]].rename(columns=columns).astype(float)


def _reference(means: pd.DataFrame, series: str, column: str) -> Reference | None:
    """The same series without DP; the first, where settings of privacy alone tell several apart."""
    without = means[(means["series"] == series) & means["epsilon"].isna() & means[column].notna()]
    if without.empty:
        return None
    value, low, high = without.iloc[0][[column, f"{column}.low", f"{column}.high"]].astype(float)
    return Reference(value=value, low=low, high=high)


def _single_runs(
    sweep: Sweep, means: pd.DataFrame, series: str, column: str
) -> list[tuple[float, float]]:
    """The runs behind the means of a series, where a mean stands for several."""
    mine = means[means["series"] == series]
    if (mine["num_seeds"] == 1).all():
        return []
    runs = sweep.runs[sweep.runs["epsilon"].notna() & sweep.runs[column].notna()]
    for setting in sweep.varying:
        runs = runs[runs[setting].isin(mine[setting])]
    return [
        (float(epsilon), float(value)) for epsilon, value in runs[["epsilon", column]].to_numpy()
    ]
