"""A finished run's results in W&B: summary, tables, curves, the page, and the files as an artefact.

Everything comes from `metrics.json`, `plan.json` and `report/`: aggregate figures, never an image,
an image's name or a patient's id. `dpmed.report.dashboard` lays panels over these keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import wandb

from dpmed.report.wandb_keys import CHARTS, EPSILON, TABLES

_VALUES = ("value", "ci_low", "ci_high", "num_positive", "num_negative", "num_images", "reason")
_PLACES = {
    "auroc": ("metric", "label"),
    "subgroups": ("attribute", "group", "metric", "label"),
    "gaps": ("attribute", "metric", "label"),
    "calibration": ("metric", "label"),
    "external": ("site", "metric", "label"),
    "geometry": ("name",),
}
# What may be published as files: no predictions, no run.json, which names images left out.
_FILES = ("metrics.json", "plan.json")


def upload(run: Any, run_dir: Path, report: Path) -> None:
    """Fills a W&B run and leaves it open.

    Args:
        run: what `wandb.init` returned.
        run_dir: a completed run folder.
        report: its page.
    """
    metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    plan = json.loads((run_dir / "plan.json").read_text(encoding="utf-8"))
    _summarise(run, metrics, plan)
    blocks = _blocks(metrics)
    tables = {TABLES[name]: _table(block, _PLACES[name]) for name, block in blocks.items() if block}
    run.log({**tables, **_charts(metrics), "report": wandb.Html(str(report), inject=False)})
    _log_files(run, run_dir, report, plan)


def _summarise(run: Any, metrics: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    test = metrics["splits"]["test"]
    run.summary.update(dict(_numbers(test["auroc"], "test/auroc")))
    run.summary.update(
        {
            f"test/gaps/{attribute}/auroc": value
            for attribute, block in metrics["gaps"].get("test", {}).items()
            if (value := _macro_gap(block)) is not None
        }
    )
    shown = ("delta", "private", "unit", "num_steps", "noise_multiplier")
    run.summary.update({EPSILON: plan["epsilon"], **{f"plan/{key}": plan[key] for key in shown}})


def _macro_gap(block: Mapping[str, Any]) -> float | None:
    return block.get("auroc", {}).get("macro", {}).get("value")


def _blocks(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    test = metrics["splits"]["test"]
    return {
        "auroc": {name: block for name, block in test.items() if _is_by_label(block)},
        "subgroups": test["subgroups"],
        "gaps": metrics["gaps"].get("test", {}),
        "calibration": {
            name: block
            for name, block in metrics["calibration"].get("test", {}).items()
            if _is_by_label(block)
        },
        "external": {
            site: {name: block for name, block in metric.items() if _is_by_label(block)}
            for site, metric in metrics["external"].items()
        },
        "geometry": metrics["geometry"],
    }


def _is_by_label(block: Any) -> bool:
    """Whether a part of `metrics.json` holds one estimate a label."""
    return isinstance(block, Mapping) and any(_is_estimate(entry) for entry in block.values())


def _is_estimate(entry: Any) -> bool:
    return isinstance(entry, Mapping) and {"value", "ci_low", "ci_high"} <= set(entry)


def _table(block: Mapping[str, Any], places: tuple[str, ...]) -> wandb.Table:
    rows: list[Iterable[Any]] = [
        [*path, *[entry.get(field) for field in _VALUES]]
        for path, entry in _estimates(block, len(places))
    ]
    return wandb.Table(columns=[*places, *_VALUES], data=rows)


def _estimates(
    block: Mapping[str, Any], depth: int, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every estimate of a nested block with its path, which is padded or joined to `depth`."""
    for name, entry in block.items():
        here = (*path, str(name))
        if _is_estimate(entry):
            joined = (*here[: depth - 1], ".".join(here[depth - 1 :]))
            yield joined + ("",) * (depth - len(joined)), entry
        elif isinstance(entry, Mapping):
            yield from _estimates(entry, depth, here)


def _charts(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """ROC curves and reliability diagrams as W&B's own line charts, one line a label."""
    curves = {
        "roc": metrics["splits"]["test"].get("roc", {}),
        "reliability": metrics["calibration"].get("test", {}).get("reliability", {}),
    }
    charts = {}
    for name, title in CHARTS.items():
        rows: list[Iterable[Any]] = [
            [label, x, y] for label, curve in curves[name].items() for x, y in _points(name, curve)
        ]
        if rows:
            table = wandb.Table(columns=["label", "x", "y"], data=rows)
            charts[name] = wandb.plot.line(table, "x", "y", stroke="label", title=title)
    return charts


def _points(name: str, curve: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    fields = ("fpr", "tpr") if name == "roc" else ("predicted", "observed")
    first, second = (curve.get(field) or [] for field in fields)
    for x, y in zip(first, second, strict=False):
        if x is not None and y is not None:
            yield x, y


def _log_files(run: Any, run_dir: Path, report: Path, plan: Mapping[str, Any]) -> None:
    artifact = wandb.Artifact(
        name=f"report-{run.id}",
        type="report",
        description=str(plan["statement"]),
        metadata={key: plan[key] for key in ("epsilon", "delta", "unit", "private")},
    )
    artifact.add_dir(str(report.parent), name="report")
    for name in _FILES:
        artifact.add_file(str(run_dir / name))
    run.log_artifact(artifact)


def _numbers(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}/{name}")
        elif isinstance(value, int | float):
            yield f"{prefix}/{name}", value
