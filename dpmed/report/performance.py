"""The parts of the page that say how good the model is: AUROC by label, ROC curves, rates.

Values come from `metrics.json`, curves from the predictions. Must not compute a metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmed.report.figures import Figure
from dpmed.report.forest import ForestBlock, ForestRow, ForestTable
from dpmed.report.headline import SUMMARIES, mapping, reported_split, split_size
from dpmed.report.numbers import (
    estimate,
    label_name,
    metric_name,
    walk_estimates,
)
from dpmed.report.plot_intervals import auroc_scale, interval_figure
from dpmed.report.plot_roc import roc_figure
from dpmed.report.run_files import RunFiles, Unavailable

_NOT_METRICS = ("auroc", "subgroups", "gaps", "calibration", "oracle")


def discrimination(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """AUROC of every label with its bar, and what else was measured per label.

    Raises:
        Unavailable: there are no metrics.
    """
    run.need("metrics.json")
    split, results = reported_split(run)
    auroc = mapping(results, "auroc")
    if not auroc:
        raise Unavailable(f"metrics.json holds no AUROC for the {split} split.")
    names = [name for name in auroc if name not in SUMMARIES]
    names += [name for name in SUMMARIES if name in auroc]
    rows = [
        ForestRow(
            name=label_name(name),
            main=estimate(auroc[name]),
            kind="summary" if name in SUMMARIES else "",
            note=_left_out(auroc[name]),
        )
        for name in names
    ]
    table = ForestTable(
        caption="AUROC by label",
        first="Label",
        blocks=[ForestBlock(title="", rows=rows)],
        scale=auroc_scale([row.main for row in rows]),
        reference=0.5,
    )
    figures.append(
        interval_figure(table.interval_rows(), name="auroc", title="AUROC", reference=0.5)
    )
    return {
        "split": split,
        "size": split_size(run, split),
        "table": table,
        "others": _other_metrics(results, names),
        "thresholds": _thresholds(run, results),
    }


def roc_curves(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """One ROC plot a label, with the subgroups that can be laid over it.

    Raises:
        Unavailable: there are no predictions, or no label has both outcomes.
    """
    split, results = reported_split(run)
    if split not in run.predictions:
        file = f"predictions/{split}.parquet"
        raise Unavailable(run.problems.get(file, f"{file} has no rows."))
    table = run.predictions[split]
    columns = [str(name) for name in table.columns]
    labels = [name.removeprefix("prob_") for name in columns if name.startswith("prob_")]
    groups = _groups(results)
    drawn, missing = [], []
    for label in labels:
        auroc = estimate(mapping(results, "auroc").get(label))
        figure = roc_figure(table, label, auroc=auroc, groups=groups)
        if figure is None:
            missing.append(label_name(label))
        else:
            drawn.append((label_name(label), auroc, figure))
    if not drawn:
        raise Unavailable("No label has both positives and negatives with finite scores.")
    figures.extend(figure for _, _, figure in drawn)
    return {"split": split, "curves": drawn, "missing": missing, "attributes": list(groups)}


def further_estimates(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """Every other estimate of `metrics.json`: gaps, calibration, external sites, geometry.

    Raises:
        Unavailable: there is none.
    """
    del figures
    split, results = reported_split(run)
    parts = {
        "Calibration": mapping(run.metrics, "calibration", split),
        "At a threshold refitted on this very split (flattering, for comparison only)": mapping(
            results, "oracle"
        ),
        "Representation geometry": mapping(run.metrics, "geometry"),
        **{
            f"External site {site}": _external(block)
            for site, block in mapping(run.metrics, "external").items()
        },
    }
    blocks = [(title, matrix) for title, tree in parts.items() if (matrix := _matrix(tree))]
    if not blocks:
        raise Unavailable("metrics.json holds no calibration, external site or geometry.")
    return {"split": split, "blocks": blocks}


def _external(block: object) -> dict[str, Any]:
    fields = block if isinstance(block, Mapping) else {}
    return {name: tree for name, tree in fields.items() if name not in _NOT_METRICS[1:]}


def _matrix(tree: object) -> dict[str, Any] | None:
    """Estimates as a table: metrics across, everything else down."""
    cells = {
        (" · ".join(label_name(name) for name in path[1:]) or "Value", metric_name(path[0])): item
        for path, item in walk_estimates(tree)
        if path
    }
    if not cells:
        return None
    names = list(dict.fromkeys(name for name, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))
    missing = estimate(None)
    rows = [(name, [cells.get((name, column), missing) for column in columns]) for name in names]
    return {"columns": columns, "rows": rows}


def _left_out(entry: object) -> str:
    missing = entry.get("labels_left_out") if isinstance(entry, Mapping) else None
    if not isinstance(missing, list) or not missing:
        return ""
    return f"without {', '.join(label_name(str(name)).lower() for name in missing)}"


def _other_metrics(results: Mapping[str, Any], labels: list[str]) -> dict[str, Any]:
    columns = [
        name
        for name, tree in results.items()
        if name not in _NOT_METRICS and any(label in mapping(results, name) for label in labels)
        and any(True for _ in walk_estimates(tree))
    ]  # fmt: skip
    rows = [
        (label_name(label), [estimate(mapping(results, name).get(label)) for name in columns])
        for label in labels
        if any(label in mapping(results, name) for name in columns)
    ]
    return {"columns": [metric_name(name) for name in columns], "rows": rows}


def _thresholds(run: RunFiles, results: Mapping[str, Any]) -> list[tuple[str, float]]:
    found = results.get("thresholds", run.metrics.get("thresholds"))
    if not isinstance(found, Mapping):
        return []
    values = {
        label: entry.get("value") if isinstance(entry, Mapping) else entry
        for label, entry in found.items()
    }
    return [
        (label_name(label), float(value))
        for label, value in values.items()
        if isinstance(value, (int, float))
    ]


def _groups(results: Mapping[str, Any]) -> dict[str, list[str]]:
    """Attributes whose groups can be found in the predictions."""
    subgroups = mapping(results, "subgroups")
    return {
        attribute: [str(name) for name in mapping(subgroups, attribute)]
        for attribute in ("sex", "age", "view", "site")
        if mapping(subgroups, attribute)
    }
