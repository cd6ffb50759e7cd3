"""Compares finished runs side by side: figures, paired differences, sites, honest summaries.

Works from run folders. The reference is the run without DP where there is exactly one, else the
first that was named. Must not rank runs to pick one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dpmed
from dpmed.errors import UserError
from dpmed.report.figures import Figure, write_figures
from dpmed.report.forest import ForestBlock, ForestRow, ForestTable
from dpmed.report.geometry_section import PARTS, metric_title
from dpmed.report.headline import macro_by_group, mapping, reported_split
from dpmed.report.numbers import (
    Estimate,
    at_most,
    estimate,
    group_name,
    label_name,
    slug,
)
from dpmed.report.page import make_environment, stamp
from dpmed.report.paired import paired_differences
from dpmed.report.plot_intervals import auroc_scale, interval_figure
from dpmed.report.plot_matrix import matrix_figure
from dpmed.report.run_files import RunFiles, is_number, read_run
from dpmed.report.sweep_figures import sweep_figures
from dpmed.report.sweep_means import condition_means
from dpmed.report.sweep_runs import read_sweep
from dpmed.report.sweep_words import joint_budget, sentences


def compare(
    run_dirs: Sequence[Path],
    output: Path,
    *,
    margin: float | None = None,
    num_bootstrap: int = 2000,
) -> Path:
    """Writes `index.html`, `figures/` and one `differences_<run>.json` for each pair.

    Args:
        run_dirs: at least two run folders.
        output: folder that takes the files; created where it is missing.
        margin: of equivalence in AUROC, declared beforehand; None claims no equivalence.
        num_bootstrap: resamples of patients for the paired differences.

    Returns:
        The page.

    Raises:
        UserError: fewer than two runs, or a folder that is none.
    """
    folders = _named(run_dirs)
    runs = {name: read_run(folder) for name, folder in folders.items()}
    output.mkdir(parents=True, exist_ok=True)
    reference = _reference(runs)
    differences = [
        paired_differences(
            (name, folders[name]),
            (reference, folders[reference]),
            margin=margin,
            num_bootstrap=num_bootstrap,
            output=output / f"differences_{slug(name)}.json",
        )
        for name in runs
        if name != reference
    ]
    figures: list[Figure] = []
    content = _content(folders, runs, figures)
    page = (
        make_environment()
        .get_template("compare.html")
        .render(reference=reference, differences=differences, margin=margin, **content)
    )
    write_figures(figures, output / "figures")
    path = output / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def _content(
    folders: Mapping[str, Path], runs: Mapping[str, RunFiles], figures: list[Figure]
) -> dict[str, Any]:
    sweep = read_sweep(folders)
    means = condition_means(sweep)
    curves = sweep_figures(sweep, means) if len(means) and means["epsilon"].nunique() > 1 else []
    tables = [_labels_table(runs), _groups_table(runs)]
    matrix = _matrix(runs)
    figures += [*curves, *matrix]
    for table, name in zip(tables, ("auroc_by_label", "auroc_by_group"), strict=True):
        if table is not None:
            figures.append(interval_figure(table.interval_rows(), name=name, title="AUROC"))
    return {
        "overview": [_overview(name, run) for name, run in runs.items()],
        "tables": [table for table in tables if table is not None],
        "matrix": matrix,
        "curves": curves[:1],
        "geometry": _geometry(runs),
        "sentences": sentences(sweep, means),
        "budget": joint_budget(sweep),
        "unfinished": sweep.unfinished,
        "version": dpmed.__version__,
    }


def _named(run_dirs: Sequence[Path]) -> dict[str, Path]:
    """Folders by the shortest tails of their paths that tell them apart."""
    paths = list(dict.fromkeys(Path(folder).resolve() for folder in run_dirs))
    if len(paths) < 2:
        raise UserError(f"Comparing needs two different runs, got {len(paths)}.")
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path} is no folder. Name the folders of finished runs.")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return _without_common_words({"/".join(path.parts[-depth:]): path for path in paths})


def _without_common_words(named: Mapping[str, Path]) -> dict[str, Path]:
    """A sweep's folders are named by settings, `a=1,seed=0`; those that all runs share go."""
    words = {name: name.split(",") for name in named}
    common = set.intersection(*(set(parts) for parts in words.values()))
    short = {
        ",".join(part for part in parts if part not in common): named[name]
        for name, parts in words.items()
    }
    return short if len(short) == len(named) and "" not in short else dict(named)


def _reference(runs: Mapping[str, RunFiles]) -> str:
    without = [name for name, run in runs.items() if run.plan and not run.dp_enabled]
    return without[0] if len(without) == 1 else next(iter(runs))


def _overview(name: str, run: RunFiles) -> dict[str, Any]:
    epsilon = run.plan.get("epsilon")
    return {
        "name": name,
        "epsilon": at_most(epsilon) if run.dp_enabled and is_number(epsilon) else "none",
        "stamp": stamp(run)[0] if run.dp_enabled else "",
        "model": str(run.run.get("model", "not reported")),
        "init": str(mapping(run.run, "init").get("source", "not reported")),
        "macro": _macro(run),
    }


def _macro(run: RunFiles) -> Estimate:
    return estimate(mapping(reported_split(run)[1], "auroc").get("macro"))


def _labels_table(runs: Mapping[str, RunFiles]) -> ForestTable | None:
    by_run = {name: mapping(reported_split(run)[1], "auroc") for name, run in runs.items()}
    labels = dict.fromkeys(label for auroc in by_run.values() for label in auroc)
    blocks = {
        label_name(label): {name: estimate(auroc.get(label)) for name, auroc in by_run.items()}
        for label in labels
        if label != "micro"
    }
    return _table("AUROC by label", blocks)


def _groups_table(runs: Mapping[str, RunFiles]) -> ForestTable | None:
    by_run = {name: dict(macro_by_group(reported_split(run)[1])) for name, run in runs.items()}
    groups = dict.fromkeys(where for found in by_run.values() for where in found)
    blocks = {
        f"{label_name(attribute)}: {group_name(attribute, group)}": {
            name: found.get((attribute, group), estimate(None)) for name, found in by_run.items()
        }
        for attribute, group in groups
    }
    return _table("AUROC by group, mean over labels", blocks)


def _table(caption: str, blocks: Mapping[str, Mapping[str, Estimate]]) -> ForestTable | None:
    if not blocks:
        return None
    return ForestTable(
        caption=caption,
        first="Run",
        blocks=[
            ForestBlock(
                title=title,
                rows=[ForestRow(name=name, main=item) for name, item in by_run.items()],
            )
            for title, by_run in blocks.items()
        ],
        scale=auroc_scale([item for by_run in blocks.values() for item in by_run.values()]),
    )


def _matrix(runs: Mapping[str, RunFiles]) -> list[Figure]:
    """Runs against the sites of the test split and the external sites; empty without sites."""
    cells: dict[tuple[str, str], Estimate] = {}
    for name, run in runs.items():
        for (attribute, group), item in macro_by_group(reported_split(run)[1]):
            if attribute == "site":
                cells[name, group] = item
        for site, block in mapping(run.metrics, "external").items():
            cells[name, f"{site} (external)"] = estimate(mapping(block, "auroc").get("macro"))
    columns = list(dict.fromkeys(column for _, column in cells))
    if len(columns) < 2:
        return []
    title = "AUROC by test site, mean over labels"
    return [matrix_figure(cells, rows=list(runs), columns=columns, name="sites", title=title)]


def _geometry(runs: Mapping[str, RunFiles]) -> dict[str, Any]:
    """Top-level numbers of each run's geometry, runs down."""
    by_run = {name: mapping(run.metrics, "geometry") for name, run in runs.items()}
    names = [
        name
        for name in dict.fromkeys(key for found in by_run.values() for key in found)
        if name not in PARTS
        and any(estimate(found.get(name)).value is not None for found in by_run.values())
    ]
    rows = [
        (run, [estimate(found.get(name)) for name in names])
        for run, found in by_run.items()
        if names
    ]
    return {"columns": [metric_title(name) for name in names], "rows": rows}
