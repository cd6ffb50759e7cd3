"""The part of the page that says for whom the model works: a panel a label, a block an attribute.

A group without an estimate keeps its row, with its counts and the reason. Must not compute metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dpmed.report.figures import Figure
from dpmed.report.forest import ForestBlock, ForestRow, ForestTable
from dpmed.report.headline import SUMMARIES, is_intersection, mapping, reported_split
from dpmed.report.numbers import Estimate, estimate, group_name, label_name, metric_name, slug
from dpmed.report.plot_intervals import IntervalScale, auroc_scale, interval_figure
from dpmed.report.run_files import RunFiles, Unavailable

MAIN_RATES = ("tpr", "fpr")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One label's results in every group.

    Attributes:
        rates: further rates as (attribute, column names, rows of name and estimates).
    """

    id: str
    name: str
    table: ForestTable
    intersections: ForestTable | None
    rates: list[tuple[str, list[str], list[tuple[str, list[Estimate]]]]]


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
    gaps = mapping(run.metrics, "gaps", split)
    panels = [_panel(label, results, gaps) for label in labels]
    for panel in panels:
        rows = panel.table.interval_rows()
        if rows:
            title, reference = f"AUROC, {panel.name.lower()}", panel.table.reference
            name = f"subgroups_{panel.id}"
            figures.append(interval_figure(rows, name=name, title=title, reference=reference))
    return {"split": split, "panels": panels}


def _labels(tree: Mapping[str, Any]) -> list[str]:
    found: dict[str, None] = {}
    for attribute in tree:
        for group in mapping(tree, attribute):
            for metric in mapping(tree, attribute, group):
                found.update(dict.fromkeys(mapping(tree, attribute, group, metric)))
    summaries = [name for name in SUMMARIES if name in found]
    return summaries + [name for name in found if name not in SUMMARIES]


def _panel(label: str, results: Mapping[str, Any], gaps: Mapping[str, Any]) -> Panel:
    tree = mapping(results, "subgroups")
    attributes = {name: mapping(tree, name) for name in tree if mapping(tree, name)}
    single = {name: groups for name, groups in attributes.items() if not is_intersection(name)}
    pairs = {name: groups for name, groups in attributes.items() if is_intersection(name)}
    overall = estimate(mapping(results, "auroc").get(label))
    scale = auroc_scale(
        [overall]
        + [_cell(fields, "auroc", label) for groups in attributes.values()
           for fields in groups.values()]
    )  # fmt: skip
    table = _table(single, gaps, label, caption=label_name(label), overall=overall, scale=scale)
    return Panel(
        id=slug(label),
        name=label_name(label),
        table=table,
        intersections=(
            _table(pairs, gaps, label, caption="Intersections", overall=overall, scale=scale)
            if pairs
            else None
        ),
        rates=[
            (label_name(name), *block)
            for name, groups in single.items()
            if (block := _further_rates(name, groups, label))[0]
        ],
    )


def _table(
    attributes: Mapping[str, Mapping[str, Any]],
    gaps: Mapping[str, Any],
    label: str,
    *,
    caption: str,
    overall: Estimate,
    scale: IntervalScale,
) -> ForestTable:
    rates = [
        rate
        for rate in MAIN_RATES
        if any(_has(groups, rate, label) for groups in attributes.values())
    ]
    blocks = [
        ForestBlock(
            title=label_name(name),
            rows=[
                *(_row(name, str(group), fields, label, rates) for group, fields in groups.items()),
                *_gap_row(name, mapping(gaps, name), label, rates),
            ],
        )
        for name, groups in attributes.items()
    ]
    return ForestTable(
        caption=caption,
        first="Group",
        blocks=blocks,
        scale=scale,
        columns=[metric_name(rate) for rate in rates],
        reference=overall.value,
    )


def _row(attribute: str, group: str, fields: Any, label: str, rates: Sequence[str]) -> ForestRow:
    main = _cell(fields, "auroc", label)
    if main.value is None and label in SUMMARIES:
        main = _with_counts_of_labels(main, mapping(fields, "auroc"))
    return ForestRow(
        name=group_name(attribute, group),
        main=main,
        others=[_cell(fields, rate, label) for rate in rates],
    )


def _with_counts_of_labels(summary: Estimate, by_label: Mapping[str, Any]) -> Estimate:
    """A mean that no label entered has no counts of its own; those of its labels say why."""
    labels = [estimate(entry) for name, entry in by_label.items() if name not in SUMMARIES]
    return replace(
        summary,
        num_positive=sum(item.num_positive or 0 for item in labels),
        num_negative=sum(item.num_negative or 0 for item in labels),
        reason="no label has enough cases",
    )


def _gap_row(
    attribute: str, gaps: Mapping[str, Any], label: str, rates: Sequence[str]
) -> list[ForestRow]:
    entry = mapping(gaps, "auroc").get(label)
    if not isinstance(entry, Mapping):
        return []
    high, low = entry.get("highest_group"), entry.get("lowest_group")
    note = ""
    if high is not None and low is not None:
        note = f"{group_name(attribute, str(high))} minus {group_name(attribute, str(low))}"
    gap = replace(estimate(entry), num_positive=None, num_negative=None)
    others = [estimate(mapping(gaps, rate).get(label)) for rate in rates]
    return [ForestRow(name="Widest gap", main=gap, others=others, kind="gap", note=note)]


def _further_rates(
    attribute: str, groups: Mapping[str, Any], label: str
) -> tuple[list[str], list[tuple[str, list[Estimate]]]]:
    known = dict.fromkeys(
        metric for fields in groups.values() for metric in mapping({"g": fields}, "g")
    )
    rates = [
        name for name in known if name not in ("auroc", *MAIN_RATES) and _has(groups, name, label)
    ]
    rows = [
        (group_name(attribute, str(group)), [_cell(fields, rate, label) for rate in rates])
        for group, fields in groups.items()
    ]
    return [metric_name(rate) for rate in rates], rows


def _has(groups: Mapping[str, Any], metric: str, label: str) -> bool:
    return any(label in mapping(groups, str(group), metric) for group in groups)


def _cell(fields: Any, metric: str, label: str) -> Estimate:
    return estimate(mapping({"group": fields}, "group", metric).get(label))
