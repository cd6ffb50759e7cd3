"""The parts of the page that say how good the model is: AUROC by label, ROC curves, rates.

Values come from `metrics.json`, curves from the predictions. Must not compute a metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dpmed.report.figures import Figure
from dpmed.report.forest import ForestBlock, ForestRow, ForestTable
from dpmed.report.headline import SUMMARIES, mapping, reported_split, split_size
from dpmed.report.numbers import (
    estimate,
    label_name,
    metric_name,
    walk_estimates,
)
from dpmed.report.plot_calibration import reliability_figure
from dpmed.report.plot_intervals import auroc_scale, interval_figure
from dpmed.report.plot_roc import RocInput, roc_figure
from dpmed.report.run_files import RunFiles, Unavailable

_NOT_METRICS = ("auroc", "subgroups", "gaps", "calibration", "oracle", "roc")


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
    rows += _of_averaged_weights(run, split)
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


def _of_averaged_weights(run: RunFiles, split: str) -> list[ForestRow]:
    """Beside the summaries, those of the weights averaged over steps, where there are any."""
    auroc = mapping(run.metrics, "splits", f"{split}_ema", "auroc")
    return [
        ForestRow(
            name=label_name(name),
            main=estimate(auroc[name]),
            kind="summary",
            note="of the weights averaged over steps (training.ema_decay)",
        )
        for name in SUMMARIES
        if name in auroc
    ]


def roc_curves(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """One ROC plot a label, with the subgroups that can be laid over it.

    Raises:
        Unavailable: no label has a curve, in the metrics or from the predictions.
    """
    split, results = reported_split(run)
    predictions = run.predictions.get(split, pd.DataFrame())
    columns = [str(name) for name in predictions.columns]
    labels = list(mapping(results, "roc")) or [
        name.removeprefix("prob_") for name in columns if name.startswith("prob_")
    ]
    groups = _groups(results) if len(predictions) else {}
    drawn, missing = [], []
    for label in labels:
        roc = _roc_input(results, label)
        figure = roc_figure(roc, predictions=predictions, groups=groups)
        if figure is None:
            missing.append(label_name(label))
        else:
            drawn.append((label_name(label), roc.auroc, figure))
    if not drawn:
        file = f"predictions/{split}.parquet"
        raise Unavailable(run.problems.get(file, "No label has positives and negatives."))
    figures.extend(figure for _, _, figure in drawn)
    return {
        "split": split,
        "curves": drawn,
        "missing": missing,
        "attributes": list(groups),
        "problem": run.problems.get(f"predictions/{split}.parquet", ""),
    }


def _roc_input(results: Mapping[str, Any], label: str) -> RocInput:
    sensitivity = estimate(mapping(results, "sensitivity").get(label)).value
    specificity = estimate(mapping(results, "specificity").get(label)).value
    point = None
    if sensitivity is not None and specificity is not None:
        point = (1 - specificity, sensitivity)
    return RocInput(
        label=label,
        curve=mapping(results, "roc", label),
        auroc=estimate(mapping(results, "auroc").get(label)),
        operating_point=point,
    )


def calibration(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """Reliability of every label, and the calibration metrics.

    Raises:
        Unavailable: there is none.
    """
    run.need("metrics.json")
    split, _ = reported_split(run)
    tree = mapping(run.metrics, "calibration", split)
    curves = mapping(tree, "reliability")
    drawn = []
    for label in curves:
        ece = estimate(mapping(tree, "ece").get(label))
        figure = reliability_figure(mapping(curves, label), label, ece=ece)
        if figure is not None:
            drawn.append((label_name(label), ece, figure))
    figures.extend(figure for _, _, figure in drawn)
    metrics = _transposed(tree)
    if metrics is None and not drawn:
        raise Unavailable(f"metrics.json holds no calibration of the {split} split.")
    return {"split": split, "curves": drawn, "metrics": metrics}


def further_estimates(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """Every other estimate of `metrics.json`: external sites, thresholds refitted on this split.

    Raises:
        Unavailable: there is none.
    """
    del figures
    split, results = reported_split(run)
    parts = {
        "At a threshold refitted on this very split (flattering, for comparison only)": mapping(
            results, "oracle"
        ),
        **{
            f"External site {site}": _external(block)
            for site, block in mapping(run.metrics, "external").items()
        },
    }
    blocks = [(title, matrix) for title, tree in parts.items() if (matrix := _matrix(tree))]
    if not blocks:
        raise Unavailable("metrics.json holds no external site.")
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


def _transposed(tree: Mapping[str, Any]) -> dict[str, Any] | None:
    return _matrix({name: part for name, part in tree.items() if name != "reliability"})


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
