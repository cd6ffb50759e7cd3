"""Metrics of every group of patients, and the gap between the best and the worst group.

Point estimates come from fairlearn's `MetricFrame`; intervals from the split's patient bootstrap,
so that groups, labels and gaps share their resamples (fairlearn's own bootstrap draws rows, not
patients). Every group appears with its counts; one with too few of a class is null with a reason.
Shapes: N rows of the split.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fairlearn.metrics import (
    MetricFrame,
    false_negative_rate,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from sklearn.metrics import accuracy_score, roc_auc_score

from dpmed.evaluation.bootstrap import PatientBootstrap
from dpmed.evaluation.discrimination import add_ranking, plan_macro
from dpmed.evaluation.estimability import Cases, Minimum, cases
from dpmed.evaluation.estimates import Planned, not_estimable
from dpmed.evaluation.groups import NOT_COMPARED
from dpmed.evaluation.predictions import LabelColumn
from dpmed.evaluation.rates import COUNTS, RATES, add_counts
from dpmed.evaluation.thresholds import Thresholds

NO_FINDING = "no_finding"  # the label whose errors are under- and overdiagnosis

# What fairlearn computes for each metric: of scores (auroc) or of decisions (the others).
POINT_METRICS: dict[str, Callable[..., float]] = {
    "auroc": roc_auc_score,
    "tpr": true_positive_rate,
    "fpr": false_positive_rate,
    "accuracy": accuracy_score,
    "selection_rate": selection_rate,
    "underdiagnosis": false_positive_rate,
    "overdiagnosis": false_negative_rate,
}
ONLY_NO_FINDING = ("underdiagnosis", "overdiagnosis")


@dataclass(frozen=True, kw_only=True)
class _Attribute:
    """One label seen through one attribute: the cases of each of its groups."""

    name: str
    column: LabelColumn
    groups: Mapping[str, Cases]
    group_N: np.ndarray
    threshold: float | None

    def scope(self, group: str) -> Hashable:
        return (self.name, group)


def plan_subgroups(
    bootstrap: PatientBootstrap,
    columns: Sequence[LabelColumn],
    groups: Mapping[str, np.ndarray],
    thresholds: Thresholds,
    *,
    minimum: Minimum,
) -> dict[str, Any]:
    """Registers every group's metrics; returns `<attribute>.<group>.<metric>.<label>`.

    Args:
        bootstrap: of the split's rows.
        columns: the labels.
        groups: group name of each row by attribute (`groups.assign_groups`).
        thresholds: by label, frozen on validation; None where there is none.
        minimum: the fewest positives and negatives that a group's metric may rest on.
    """
    return {
        name: _plan_attribute(bootstrap, columns, name, group_N, thresholds, minimum)
        for name, group_N in groups.items()
    }


def _plan_attribute(
    bootstrap: PatientBootstrap,
    columns: Sequence[LabelColumn],
    name: str,
    group_N: np.ndarray,
    thresholds: Thresholds,
    minimum: Minimum,
) -> dict[str, Any]:
    names = [str(group) for group in np.unique(group_N)]
    planned: dict[str, Any] = {
        group: {metric: {} for metric in (*POINT_METRICS, "spd")} for group in names
    }
    for column in columns:
        attribute = _Attribute(
            name=name,
            column=column,
            groups={group: cases(column, group_N == group) for group in names},
            group_N=group_N,
            threshold=thresholds.get(column.name),
        )
        for metric in POINT_METRICS:
            if metric in ONLY_NO_FINDING and column.name != NO_FINDING:
                continue
            for group, each in _plan_metric(bootstrap, attribute, metric, minimum).items():
                planned[group][metric][column.name] = each
        for group, each in _plan_spd(bootstrap, attribute, minimum).items():
            planned[group]["spd"][column.name] = each
    for group in names:
        by_label = planned[group]["auroc"]
        by_label["macro"] = plan_macro(bootstrap, (name, group), by_label)
        planned[group] = {metric: labels for metric, labels in planned[group].items() if labels}
    return planned


def _plan_metric(
    bootstrap: PatientBootstrap, attribute: _Attribute, metric: str, minimum: Minimum
) -> dict[str, Planned]:
    reasons = {
        group: _reason(attribute, rows, metric, minimum) for group, rows in attribute.groups.items()
    }
    usable = [group for group, reason in reasons.items() if reason is None]
    points = _points(attribute, metric, usable)
    return {
        group: Planned(
            key=_add(bootstrap, attribute, metric, group) if group in points else None,
            num_positive=rows.num_positive,
            num_negative=rows.num_negative,
            reason=reasons[group],
            value=points.get(group),
        )
        for group, rows in attribute.groups.items()
    }


def _reason(attribute: _Attribute, rows: Cases, metric: str, minimum: Minimum) -> str | None:
    if metric == "auroc":
        return rows.reason(minimum, needs_ranking=True)
    rate = RATES[metric]
    reason = rows.reason(
        minimum, needs_positives=rate.needs_positives, needs_negatives=rate.needs_negatives
    )
    if reason is None and attribute.threshold is None:
        return not_estimable("there is no threshold for this label")
    return reason


def _points(attribute: _Attribute, metric: str, usable: Sequence[str]) -> dict[str, float]:
    """The value that fairlearn gives each usable group."""
    if not usable:
        return {}
    column = attribute.column
    rows_N = column.known_N & np.isin(attribute.group_N, usable)
    scores = column.scores_N[rows_N]
    frame = MetricFrame(
        metrics=POINT_METRICS[metric],
        y_true=column.positive_N[rows_N].astype(int),
        y_pred=scores if metric == "auroc" else (scores >= attribute.threshold).astype(int),
        sensitive_features=attribute.group_N[rows_N],
    )
    return {str(group): float(value) for group, value in frame.by_group.items()}


def _add(bootstrap: PatientBootstrap, attribute: _Attribute, metric: str, group: str) -> Hashable:
    rows, scope = attribute.groups[group], attribute.scope(group)
    if metric == "auroc":
        return add_ranking(bootstrap, metric, scope, rows)
    key = (metric, scope, rows.column.name)
    counts = _add_counts(bootstrap, attribute, group)
    bootstrap.add_derived(key, counts, RATES[metric].formula)
    return key


def _add_counts(
    bootstrap: PatientBootstrap, attribute: _Attribute, group: str
) -> tuple[Hashable, ...]:
    assert attribute.threshold is not None
    rows = attribute.groups[group]
    return add_counts(
        bootstrap,
        attribute.scope(group),
        rows.column,
        threshold=attribute.threshold,
        member_N=rows.rows_N,
    )


def _plan_spd(
    bootstrap: PatientBootstrap, attribute: _Attribute, minimum: Minimum
) -> dict[str, Planned]:
    """Accuracy of a group minus the size-weighted mean accuracy of the others.

    Source: statistical parity difference as in arXiv 2302.01622; with two sexes it is, for F,
    accuracy of F minus accuracy of M.
    """
    compared = [group for group in attribute.groups if group not in NOT_COMPARED]
    planned = {}
    for group, rows in attribute.groups.items():
        reason = _reason(attribute, rows, "accuracy", minimum)
        others = [
            other
            for other in compared
            if other != group
            and _reason(attribute, attribute.groups[other], "accuracy", Minimum()) is None
        ]
        if reason is None and (group in NOT_COMPARED or not others):
            reason = not_estimable("there is no other group to compare with")
        key = None
        if reason is None:
            key = ("spd", attribute.scope(group), attribute.column.name)
            counts = [
                count
                for each in (group, *others)
                for count in _add_counts(bootstrap, attribute, each)
            ]
            bootstrap.add_derived(key, counts, _spd)
        planned[group] = Planned(
            key=key,
            num_positive=rows.num_positive,
            num_negative=rows.num_negative,
            reason=reason,
        )
    return planned


def _spd(*counts: np.ndarray) -> np.ndarray:
    accuracy = RATES["accuracy"].formula
    size = len(COUNTS)
    others = [np.sum(counts[size + start :: size], axis=0) for start in range(size)]
    return accuracy(*counts[:size]) - accuracy(*others)
