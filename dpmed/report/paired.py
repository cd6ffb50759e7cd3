"""Differences between two runs on the same test images, paired by patient, ready for a page.

The statistics are `dpmed.evaluation.comparison`'s; here the files are read and the result is put
into rows. Runs that were not evaluated on the same images are not compared, and the reason is said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.errors import UserError
from dpmed.evaluation.comparison import compare as compare_predictions
from dpmed.evaluation.metrics import read_metrics
from dpmed.evaluation.predictions import read_predictions
from dpmed.report.headline import is_intersection, mapping
from dpmed.report.numbers import Estimate, estimate, group_name, label_name
from dpmed.report.plot_intervals import IntervalScale
from dpmed.report.redaction import known_patient_ids, redact_text


@dataclass(frozen=True, kw_only=True)
class DifferenceRow:
    """Candidate minus reference of one AUROC.

    Attributes:
        p_value: two-sided, from the paired bootstrap; empty where there is none.
        p_adjusted: over the labels; empty for groups and means.
        equivalence: whether the declared margin holds; empty where none was declared.
    """

    name: str
    estimate: Estimate
    p_value: str
    p_adjusted: str
    equivalence: str


@dataclass(frozen=True, kw_only=True)
class Differences:
    """All differences of one candidate, on one scale around zero, or why there are none."""

    candidate: str
    reference: str
    rows: list[tuple[str, list[DifferenceRow]]]
    scale: IntervalScale
    reason: str


def paired_differences(
    candidate: tuple[str, Path],
    reference: tuple[str, Path],
    *,
    margin: float | None,
    num_bootstrap: int,
    output: Path,
) -> Differences:
    """Compares the test predictions of two runs, and keeps the whole result as JSON.

    Args:
        candidate: name and run folder.
        reference: name and run folder.
        margin: of equivalence in AUROC, declared beforehand; None claims no equivalence.
        num_bootstrap: resamples of patients.
        output: the JSON file that takes every difference.
    """
    try:
        result = _compare(candidate[1], reference[1], margin, num_bootstrap)
    except UserError as error:
        ids = known_patient_ids(candidate[1]) | known_patient_ids(reference[1])
        return _nothing(candidate[0], reference[0], redact_text(str(error), ids))
    output.write_text(json.dumps(result, indent=1, allow_nan=False), encoding="utf-8")
    rows = [("By label", _label_rows(result)), ("By group, mean over labels", _group_rows(result))]
    return Differences(
        candidate=candidate[0],
        reference=reference[0],
        rows=[(title, block) for title, block in rows if block],
        scale=_scale([row.estimate for _, block in rows for row in block]),
        reason="",
    )


def _compare(
    candidate: Path, reference: Path, margin: float | None, num_bootstrap: int
) -> dict[str, Any]:
    ours, theirs = (read_metrics(folder / "metrics.json") for folder in (candidate, reference))
    settings = ours["settings"]
    labels = [label for label in settings["labels"] if label in theirs["settings"]["labels"]]
    if not labels:
        raise UserError("The two runs have no label in common.")
    tables = (
        read_predictions(folder / "predictions" / "test.parquet", labels=labels)
        for folder in (candidate, reference)
    )
    return compare_predictions(
        *tables,
        labels=labels,
        candidate_thresholds=_thresholds(ours, labels),
        reference_thresholds=_thresholds(theirs, labels),
        subgroups=settings["subgroups"],
        margin=margin,
        num_bootstrap=num_bootstrap,
        min_positives=settings["min_positives"],
        min_negatives=settings["min_negatives"],
        age_bins=settings["age_bins"],
        intersections=False,
    )


def _thresholds(metrics: Mapping[str, Any], labels: list[str]) -> dict[str, float | None]:
    return {label: metrics["thresholds"][label]["value"] for label in labels}


def _label_rows(result: Mapping[str, Any]) -> list[DifferenceRow]:
    auroc = mapping(result, "auroc")
    names = [name for name in auroc if name != "micro"]
    return [_row(label_name(name), auroc[name]) for name in names]


def _group_rows(result: Mapping[str, Any]) -> list[DifferenceRow]:
    return [
        _row(f"{label_name(attribute)}: {group_name(attribute, group)}", entry["auroc"]["macro"])
        for attribute, groups in mapping(result, "subgroups").items()
        if not is_intersection(attribute)
        for group, entry in groups.items()
    ]


def _row(name: str, entry: Mapping[str, Any]) -> DifferenceRow:
    found = mapping(entry, "equivalence").get("equivalent")
    return DifferenceRow(
        name=name,
        estimate=estimate(entry),
        p_value=_p(entry.get("p_value")),
        p_adjusted=_p(entry.get("p_adjusted")),
        equivalence="" if found is None else "within the margin" if found else "not shown",
    )


def _p(value: Any) -> str:
    if not isinstance(value, float):
        return ""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"


def _scale(estimates: list[Estimate]) -> IntervalScale:
    ends = [
        abs(end)
        for item in estimates
        for end in (item.value, item.low, item.high)
        if end is not None
    ]
    reach = max([0.02, *ends]) * 1.05
    return IntervalScale(low=-reach, high=reach)


def _nothing(candidate: str, reference: str, reason: str) -> Differences:
    scale = IntervalScale(low=-1, high=1)
    return Differences(
        candidate=candidate, reference=reference, rows=[], scale=scale, reason=reason
    )
