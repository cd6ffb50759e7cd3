"""Collects the runs of a sweep: one table, one epsilon-AUROC plot, one page.

Reads run folders only, so it can be repeated at any time, with some runs still going; the same
folders give the same files byte for byte. Must not train, and never ranks runs to pick one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

import dpmed
from dpmed.report.figures import Figure, write_figures
from dpmed.report.numbers import decimal, group_name, label_name, slug
from dpmed.report.page import make_environment
from dpmed.report.plot_sweep import Series, epsilon_auroc_figure
from dpmed.report.sweep_means import OVER_SEEDS, condition_means
from dpmed.report.sweep_runs import Sweep, find_runs, read_sweep
from dpmed.report.sweep_words import joint_budget, sentences


def collect(sweep_dir: Path) -> Path:
    """Writes `index.html`, `runs.csv`, `summary.csv`, `summary.md` and `figures/` of a sweep.

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
    output.mkdir(parents=True, exist_ok=True)
    means = condition_means(sweep) if len(sweep.runs) else pd.DataFrame()
    figures = _figures(sweep, means) if len(sweep.runs) else []
    sweep.runs.to_csv(output / "runs.csv", index=False)
    means.to_csv(output / "summary.csv", index=False)
    (output / "summary.md").write_text(_markdown(sweep, means), encoding="utf-8")
    write_figures(figures, output / "figures")
    page = (
        make_environment()
        .get_template("sweep.html")
        .render(
            title=title,
            headers=_headers(sweep),
            rows=_rows(sweep, means),
            label_rows=_label_rows(sweep, means),
            sentences=sentences(sweep, means),
            budget=joint_budget(sweep),
            main=figures[:1],
            by_group=figures[1:],
            unfinished=sweep.unfinished,
            num_runs=len(sweep.runs),
            version=dpmed.__version__,
        )
    )
    path = output / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def _figures(sweep: Sweep, means: pd.DataFrame) -> list[Figure]:
    """The plot over all patients first, then one a series and attribute with a line a group."""
    private = means[means["epsilon"].notna()]
    if private.empty:
        return []
    names = list(dict.fromkeys(private["series"]))
    figures = [
        epsilon_auroc_figure(
            [
                _series(sweep, means, series=name, column="auroc.macro", label=name)
                for name in names
            ],
            name="epsilon_auroc",
            title="AUROC, mean over labels",
        )
    ]
    for series in names:
        for attribute in dict.fromkeys(attribute for attribute, _ in sweep.groups):
            lines = [
                _series(sweep, means, series=series, column=f"group.{attribute}.{group}",
                        label=group_name(attribute, group), with_reference=False)
                for name, group in sweep.groups
                if name == attribute
            ]  # fmt: skip
            lines = [line for line in lines if len(line.points)]
            if lines:
                name = f"epsilon_auroc_{slug(attribute)}_{slug(series)}"
                title = f"AUROC by {attribute}" + (f" · {series}" if len(names) > 1 else "")
                figures.append(epsilon_auroc_figure(lines, name=name, title=title))
    return figures


def _series(
    sweep: Sweep,
    means: pd.DataFrame,
    *,
    series: str,
    column: str,
    label: str,
    with_reference: bool = True,
) -> Series:
    mine = means[means["series"] == series]
    columns = {column: "value", f"{column}.low": "low", f"{column}.high": "high"}
    points = mine[mine["epsilon"].notna() & mine[column].notna()][["epsilon", *columns]]
    without = mine[mine["epsilon"].isna() & mine[column].notna()]
    reference = None
    if with_reference and len(without):
        row = without.iloc[0]
        reference = (row[column], _or_none(row[f"{column}.low"]), _or_none(row[f"{column}.high"]))
    shown = points.rename(columns=columns).astype(float).reset_index(drop=True)
    dots = _dots(sweep, mine, column) if with_reference else []
    return Series(name=label, points=shown, reference=reference, dots=dots)


def _dots(sweep: Sweep, mine: pd.DataFrame, column: str) -> list[tuple[float, float]]:
    """Single runs of this series, where a mean stands for several."""
    if (mine["num_seeds"] == 1).all():
        return []
    runs = sweep.runs
    for setting in sweep.varying:
        runs = runs[runs[setting].isin(mine[setting])]
    known = runs[runs["epsilon"].notna() & runs[column].notna()]
    return [(float(row["epsilon"]), float(row[column])) for _, row in known.iterrows()]


def _headers(sweep: Sweep) -> list[str]:
    return ["Epsilon", *[name.replace("_", " ") for name in sweep.varying], "Seeds"]


def _rows(sweep: Sweep, means: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "cells": _condition(sweep, row),
            "macro": _text(row, "auroc.macro"),
            "labels": [_text(row, f"auroc.{label}") for label in sweep.labels[:-1]],
            "over": row["interval_over"],
            "private": row["private"] or _or_none(row["epsilon"]) is None,
        }
        for _, row in means.iterrows()
    ]


def _condition(sweep: Sweep, row: pd.Series) -> list[str]:
    epsilon = _or_none(row["epsilon"])
    first = "none (no DP)" if epsilon is None else f"{epsilon:g}"
    return [first, *[str(row[name]) for name in sweep.varying], str(row["num_seeds"])]


def _label_rows(sweep: Sweep, means: pd.DataFrame) -> dict[str, Any]:
    groups = [
        (group_name(attribute, group), f"group.{attribute}.{group}")
        for attribute, group in sweep.groups
    ]
    labels = [(label_name(label), f"auroc.{label}") for label in sweep.labels]
    return {
        "conditions": [
            " · ".join(_condition(sweep, row)[:-1]) for _, row in means.iterrows()
        ],
        "blocks": [
            (title, [(name, [_text(row, column) for _, row in means.iterrows()])
                     for name, column in rows])
            for title, rows in (("By label", labels), ("By group, mean over labels", groups))
            if rows
        ],
    }  # fmt: skip


def _markdown(sweep: Sweep, means: pd.DataFrame) -> str:
    headers = [*_headers(sweep), "AUROC, mean over labels (95 % CI)", "interval over"]
    lines = [f"| {' | '.join(headers)} |", "|" + "---|" * len(headers)]
    for row in _rows(sweep, means):
        cells = [*row["cells"], row["macro"], row["over"]]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    if (means["interval_over"] == OVER_SEEDS).any() if len(means) else False:
        lines += [
            "",
            "Intervals over seeds say how much training varies on the same test patients.",
        ]
    lines += [f"- {name}: not collected, {reason}" for name, reason in sweep.unfinished]
    return "\n".join(lines) + "\n"


def _text(row: pd.Series, column: str) -> str:
    value, low, high = (_or_none(row[name]) for name in (column, f"{column}.low", f"{column}.high"))
    if value is None:
        return "not estimable"
    if low is None or high is None:
        return decimal(value)
    return f"{decimal(value)} ({decimal(low)}–{decimal(high)})"


def _or_none(value: Any) -> float | None:
    return None if value is None or value != value else float(value)
