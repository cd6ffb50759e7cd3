"""The part of the page that says for whom the model works: one panel a label, one table an attribute.

A group without an estimate keeps its row, with its counts and the reason. Must not compute a metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpmed.report.figures import Figure
from dpmed.report.forest import ForestRow, ForestTable, forest_table
from dpmed.report.headline import SUMMARIES, is_intersection, mapping, reported_split
from dpmed.report.numbers import Estimate, estimate, group_name, label_name, slug
from dpmed.report.performance import metric_name
from dpmed.report.plot_intervals import IntervalScale, auroc_scale, interval_figure
from dpmed.report.run_files import RunFiles, Unavailable

_RATES = ("tpr", "fpr")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One label's results in every group."""

    id: str
    name: str
    tables: list[ForestTable]
    intersections: list[ForestTable]


def subgroups(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """One panel a label, the mean over labels first.

    Raises:
        Unavailable: no subgroup was evaluated.
    """
    run.need("metrics.json")
    split, results = reported_split(run)
    tree = mapping(results, "subgroups")
    labels = _labels(tree)
    if not labels:
        raise Unavailable(f"metrics.json holds no subgroup of the {split} split.")
    panels = [_panel(label, results, tree) for label in labels]
    for panel in panels:
        rows = [row for table in panel.tables for row in table.interval_rows()]
        if rows:
            reference = panel.tables[0].reference
            figures.append(
                interval_figure(
                    rows,
                    name=f"subgroups_{panel.id}",
                    title=f"AUROC, {panel.name}",
                    reference=reference,
                )  # fmt: skip
            )
    return {"split": split, "panels": panels}


def _labels(tree: Mapping[str, Any]) -> list[str]:
    found: dict[str, None] = {}
    for attribute in tree:
        for group in mapping(tree, attribute):
            for metric in mapping(tree, attribute, group):
                found.update(dict.fromkeys(mapping(tree, attribute, group, metric)))
    found = {name: None for name in found if name not in ("value", "reason")}
    summaries = [name for name in SUMMARIES if name in found]
    return summaries + [name for name in found if name not in SUMMARIES]


def _panel(label: str, results: Mapping[str, Any], tree: Mapping[str, Any]) -> Panel:
    overall = estimate(mapping(results, "auroc").get(label))
    groups = {attribute: mapping(tree, attribute) for attribute in tree}
    every = [
        _cell(fields, "auroc", label) for group in groups.values() for fields in group.values()
    ]
    scale = auroc_scale([overall, *every])
    tables = {
        attribute: _table(attribute, members, label, reference=overall.value, scale=scale)
        for attribute, members in groups.items()
        if members
    }
    return Panel(
        id=slug(label),
        name=label_name(label),
        tables=[table for name, table in tables.items() if not is_intersection(name)],
        intersections=[table for name, table in tables.items() if is_intersection(name)],
    )


def _table(
    attribute: str,
    members: Mapping[str, Any],
    label: str,
    *,
    reference: float | None,
    scale: IntervalScale,
) -> ForestTable:
    rates = _rates(members, label)
    rows = [
        ForestRow(
            name=group_name(attribute, str(name)),
            main=_cell(fields, "auroc", label),
            others=[_cell(fields, rate, label) for rate in rates],
        )
        for name, fields in members.items()
    ]
    return forest_table(
        rows,
        caption=f"{label_name(label)} by {attribute}",
        first=label_name(attribute),
        columns=[metric_name(rate) for rate in rates],
        reference=reference,
        scale=scale,
    )


def _rates(members: Mapping[str, Any], label: str) -> list[str]:
    """The rates that any of the groups gives for this label."""
    return [
        rate
        for rate in _RATES
        if any(label in mapping(members, str(name), rate) for name in members)
    ]


def _cell(fields: object, metric: str, label: str) -> Estimate:
    return estimate(mapping(fields, metric).get(label) if isinstance(fields, Mapping) else None)
