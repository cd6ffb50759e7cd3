"""How a sweep's representations go with its results: correlations over runs, and their pictures.

The correlations are `dpmed.evaluation.correlations`': pooled, and within data set and
initialisation. Runs of one sweep are no random sample, so they describe and do not test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dpmed.evaluation.correlations import METHODS, correlate_runs
from dpmed.report.figures import Figure
from dpmed.report.geometry_section import metric_title
from dpmed.report.numbers import Estimate, estimate
from dpmed.report.plot_scatter import Cloud, scatter_figure
from dpmed.report.sweep_means import GEOMETRY_PREFIX
from dpmed.report.sweep_runs import Sweep

CORRELATED = ("end_to_end_utility", "utilisation_gap", "displacement", "effective_dimension")
WITHIN = {"pooled": "all runs", "dataset": "within data set", "initialisation": "within start"}


def correlation_rows(sweep: Sweep) -> list[tuple[str, list[Estimate]]]:
    """A row a pair of quantities and way of pooling; Pearson's, then Spearman's."""
    table = _table(sweep)
    if table.empty:
        return []
    found = correlate_runs(table, quantities=[name for name in CORRELATED if name in table])
    rows: dict[str, dict[str, Estimate]] = {}
    for entry in found:
        name = f"{metric_title(entry['x'])} and {metric_title(entry['y']).lower()}, "
        name += f"{WITHIN[entry['within']]} (n = {entry['n']})"
        rows.setdefault(name, {})[entry["method"]] = estimate(entry)
    return [(name, [by_method[method] for method in METHODS]) for name, by_method in rows.items()]


def correlation_records(sweep: Sweep) -> pd.DataFrame:
    """The same with every field, for a file."""
    table = _table(sweep)
    rows: Sequence[Any] = []
    if not table.empty:
        rows = correlate_runs(table, quantities=[name for name in CORRELATED if name in table])
    return pd.DataFrame(rows)


def scatter_figures(sweep: Sweep) -> list[Figure]:
    """End-to-end utility against each of the other quantities, a dot a run, a colour a start."""
    table = _table(sweep)
    if table.empty:
        return []
    against, *others = (name for name in CORRELATED if name in table)
    figures = []
    for other in others:
        clouds = [
            Cloud(
                name=str(name),
                points=[
                    (float(run[other]), float(run[against]), _words(run))
                    for _, run in runs.iterrows()
                    if pd.notna(run[other]) and pd.notna(run[against])
                ],
            )
            for name, runs in table.groupby("initialisation", sort=False)
        ]
        if any(cloud.points for cloud in clouds):
            titles = (metric_title(other), metric_title(against))
            figures.append(scatter_figure(clouds, name=f"scatter_{other}", titles=titles))
    return figures


def _table(sweep: Sweep) -> pd.DataFrame:
    """Runs with a geometry, their quantities under their own names; empty below two quantities."""
    columns = {f"{GEOMETRY_PREFIX}{name}": name for name in CORRELATED if name in sweep.geometry}
    if len(columns) < 2 or CORRELATED[0] not in columns.values():
        return pd.DataFrame()
    kept = sweep.runs[["run", "epsilon", "dataset", "initialisation", *columns]]
    return kept.rename(columns=columns).dropna(subset=list(columns.values()), how="all")


def _words(run: pd.Series) -> str:
    epsilon = "no DP" if pd.isna(run["epsilon"]) else f"epsilon {run['epsilon']:g}"
    return f"{run['initialisation']}, {epsilon}"
