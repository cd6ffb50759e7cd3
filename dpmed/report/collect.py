"""Collects the runs of a sweep: one table, one epsilon-AUROC plot, one page.

Reads run folders only, so it can be repeated at any time, with some runs still going; the same
folders give the same files byte for byte. Must not train, and never ranks runs to pick one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

import dpmed
from dpmed.report.figures import Figure, write_figures
from dpmed.report.page import make_environment
from dpmed.report.sweep_cost import cost_table
from dpmed.report.sweep_figures import geometry_figures, site_figures, sweep_figures
from dpmed.report.sweep_geometry import correlation_records, correlation_rows, scatter_figures
from dpmed.report.sweep_means import condition_means
from dpmed.report.sweep_runs import Sweep, find_runs, read_sweep
from dpmed.report.sweep_settings import setting_figures
from dpmed.report.sweep_tables import (
    condition_rows,
    group_headings,
    label_headings,
    markdown,
    seeds_note,
    setting_names,
)
from dpmed.report.sweep_words import joint_budget, sentences

_PARTS = ("main", "settings", "by_group", "sites", "geometry", "scatter")


def collect(sweep_dir: Path) -> Path:
    """Writes `index.html`, `figures/`, `summary.md` and three tables as CSV files of a sweep.

    The tables are `runs.csv`, `summary.csv` (means over seeds) and `correlations.csv` (geometry).

    Args:
        sweep_dir: the folder of a multirun.

    Returns:
        The page.

    Raises:
        UserError: no such folder, or no run in it.
    """
    sweep_dir = Path(sweep_dir)
    return write_sweep(find_runs(sweep_dir), sweep_dir, title=f"Sweep {sweep_dir.resolve().name}")


def write_sweep(folders: Mapping[str, Path], output: Path, *, title: str) -> Path:
    """Writes the tables, figures and page of named runs.

    Args:
        folders: run folders by the name to show.
        output: folder that takes the files; created where it is missing.
        title: heading of the page.
    """
    sweep = read_sweep(folders)
    means = condition_means(sweep)
    figures = _figures(sweep, means) if len(means) else {}
    output.mkdir(parents=True, exist_ok=True)
    sweep.runs.to_csv(output / "runs.csv", index=False)
    means.to_csv(output / "summary.csv", index=False)
    (output / "summary.md").write_text(markdown(sweep, means), encoding="utf-8")
    correlation_records(sweep).to_csv(output / "correlations.csv", index=False)
    write_figures([item for items in figures.values() for item in items], output / "figures")
    path = output / "index.html"
    path.write_text(_page(sweep, means, figures, title), encoding="utf-8")
    return path


def _figures(sweep: Sweep, means: pd.DataFrame) -> dict[str, list[Figure]]:
    """Every plot, by the part of the page that shows it."""
    against_epsilon = sweep_figures(sweep, means)
    return {
        "main": against_epsilon[:1],
        "settings": setting_figures(sweep, means),
        "by_group": against_epsilon[1:],
        "sites": site_figures(sweep, means),
        "geometry": geometry_figures(sweep, means),
        "scatter": scatter_figures(sweep),
    }


def _page(
    sweep: Sweep, means: pd.DataFrame, figures: Mapping[str, list[Figure]], title: str
) -> str:
    template = make_environment().get_template("sweep.html")
    return template.render(
        title=title,
        constant=list(sweep.constant.values()),
        settings=setting_names(sweep),
        labels=label_headings(sweep),
        groups=group_headings(sweep),
        rows=condition_rows(sweep, means),
        seeds_note=seeds_note(sweep) if len(means) else "",
        sentences=sentences(sweep, means),
        budget=joint_budget(sweep),
        figures={name: figures.get(name, []) for name in _PARTS},
        costs=cost_table(sweep, means) if len(means) else [],
        correlations=correlation_rows(sweep),
        unfinished=sweep.unfinished,
        num_runs=len(sweep.runs),
        version=dpmed.__version__,
    )
