"""Metrics of every group of patients, with the counts that they rest on.

Point estimates come from fairlearn's `MetricFrame`; intervals from the split's patient bootstrap,
so that groups, labels and gaps share their resamples (fairlearn's own bootstrap draws rows, not
patients). Every group appears with its counts; one with too few of a class is null with a reason.
Gaps between groups are in `gaps.py`. Shapes: N rows of the split.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fairlearn.metrics import (
    false_negative_rate,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from sklearn.metrics import accuracy_score, roc_auc_score

from dpmed.evaluation.bootstrap import PatientBootstrap
from dpmed.evaluation.calibration import plan_calibration
from dpmed.evaluation.discrimination import add_ranking, plan_macro
from dpmed.evaluation.estimability import Cases, Minimum, cases
from dpmed.evaluation.estimates import Planned, not_estimable
from dpmed.evaluation.frames import group_values
from dpmed.evaluation.groups import NOT_COMPARED
from dpmed.evaluation.predictions import LabelColumn
from dpmed.evaluation.rates import COUNTS, RATES, add_counts, matched
from dpmed.evaluation.thresholds import Thresholds

NO_FINDING = "no_finding"  # the label whose errors are under- and overdiagnosis

OF_SCORES = {"auroc": roc_auc_score}
OF_DECISIONS = {
    "tpr": true_positive_rate,
    "fpr": false_positive_rate,
    "accuracy": accuracy_score,
    "selection_rate": selection_rate,
}
MATCHED = {"accuracy_matched": "accuracy", "selection_rate_matched": "selection_rate"}
OF_NO_FINDING = {"underdiagnosis": false_positive_rate, "overdiagnosis": false_negative_rate}


@dataclass(frozen=True, kw_only=True)
class _Attribute:
    """One label seen through one attribute: the cases of each of its groups."""

    name: str
    column: LabelColumn
    groups: Mapping[str, Cases]
    threshold: float | None
    minimum: Minimum
    prevalence_matched: bool
    model: str

    def scope(self, group: str) -> Hashable:
        return (self.model, self.name, group)

    def reason(self, group: str, metric: str) -> str | None:
        """Why a metric of this group is not estimable; None when it is."""
        rows = self.groups[group]
        if metric in OF_SCORES:
            return rows.reason(self.minimum, needs_ranking=True)
        rate = RATES[metric]
        reason = rows.reason(
            self.minimum,
            needs_positives=rate.needs_positives,
            needs_negatives=rate.needs_negatives,
        )
        if reason is None and self.threshold is None:
            return not_estimable("there is no threshold for this label")
        return reason


def plan_subgroups(
    bootstrap: PatientBootstrap,
    columns: Sequence[LabelColumn],
    groups: Mapping[str, np.ndarray],
    thresholds: Thresholds,
    *,
    minimum: Minimum,
    prevalence_matched: bool = False,
    model: str = "",
) -> dict[str, Any]:
    """Registers every group's metrics; returns `<attribute>.<group>.<metric>.<label>`.

    Args:
        bootstrap: of the split's rows.
        columns: the labels.
        groups: group name of each row by attribute (`groups.assign_groups`).
        thresholds: by label, frozen on validation; None where there is none.
        minimum: the fewest positives and negatives that a group's metric may rest on.
        prevalence_matched: also accuracy and selection rate as if every group had the prevalence
            of the whole split.
        model: tells models apart that share a bootstrap.
    """
    planned: dict[str, Any] = {}
    for name, group_N in groups.items():
        names = [str(group) for group in np.unique(group_N)]
        planned[name] = {group: {} for group in names}
        for column in columns:
            attribute = _Attribute(
                name=name,
                column=column,
                groups={group: cases(column, group_N == group) for group in names},
                threshold=thresholds.get(column.name),
                minimum=minimum,
                prevalence_matched=prevalence_matched,
                model=model,
            )
            _plan_label(bootstrap, attribute, planned[name])
        for group, metrics in planned[name].items():
            metrics["auroc"]["macro"] = plan_macro(
                bootstrap, (model, name, group), metrics["auroc"]
            )
    return planned


def _plan_label(
    bootstrap: PatientBootstrap, attribute: _Attribute, planned: dict[str, Any]
) -> None:
    of_decisions = dict(OF_DECISIONS)
    if attribute.column.name == NO_FINDING:
        of_decisions |= OF_NO_FINDING
    points = _points(attribute, of_decisions)
    for group in attribute.groups:
        for metric in (*OF_SCORES, *of_decisions):
            planned[group].setdefault(metric, {})[attribute.column.name] = _plan_metric(
                bootstrap, attribute, group, metric, points
            )
        calibration = plan_calibration(
            bootstrap,
            attribute.scope(group),
            attribute.groups[group],
            minimum=attribute.minimum,
        )
        for metric, each in calibration.items():
            planned[group].setdefault(metric, {})[attribute.column.name] = each
        if attribute.prevalence_matched:
            for metric in MATCHED:
                planned[group].setdefault(metric, {})[attribute.column.name] = _plan_matched(
                    bootstrap, attribute, group, metric
                )
        planned[group].setdefault("spd", {})[attribute.column.name] = _plan_spd(
            bootstrap, attribute, group
        )


def _points(attribute: _Attribute, of_decisions: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What fairlearn gives each group, as `result[metric][group]`; some may be meaningless."""
    points: dict[str, dict[str, float]] = {}
    ranked = [group for group in attribute.groups if attribute.reason(group, "auroc") is None]
    if ranked:
        points |= _group_values(attribute, ranked, OF_SCORES, threshold=None)
    labelled = [group for group, rows in attribute.groups.items() if len(rows.scores)]
    if labelled and attribute.column.reason is None and attribute.threshold is not None:
        points |= _group_values(attribute, labelled, of_decisions, threshold=attribute.threshold)
    return points


def _group_values(
    attribute: _Attribute,
    groups: Sequence[str],
    metrics: Mapping[str, Any],
    *,
    threshold: float | None,
) -> dict[str, dict[str, float]]:
    rows = [attribute.groups[group] for group in groups]
    scores_N = np.concatenate([each.scores for each in rows])
    return group_values(
        metrics,
        truth_N=np.concatenate([each.positive for each in rows]),
        predicted_N=scores_N if threshold is None else scores_N >= threshold,
        group_N=np.repeat(groups, [len(each.scores) for each in rows]),
    )


def _plan_metric(
    bootstrap: PatientBootstrap,
    attribute: _Attribute,
    group: str,
    metric: str,
    points: Mapping[str, Mapping[str, float]],
) -> Planned:
    rows, reason = attribute.groups[group], attribute.reason(group, metric)
    key = None
    if reason is None and metric in OF_SCORES:
        key = add_ranking(bootstrap, metric, attribute.scope(group), rows)
    elif reason is None:
        key = (metric, attribute.scope(group), rows.column.name)
        bootstrap.add_derived(key, _add_counts(bootstrap, attribute, group), RATES[metric].formula)
    return Planned(
        key=key,
        num_positive=rows.num_positive,
        num_negative=rows.num_negative,
        reason=reason,
        value=points[metric][group] if reason is None else None,
    )


def _plan_matched(
    bootstrap: PatientBootstrap, attribute: _Attribute, group: str, metric: str
) -> Planned:
    rows, reason = attribute.groups[group], attribute.reason(group, MATCHED[metric])
    whole = cases(attribute.column)
    key = (metric, attribute.scope(group), rows.column.name)
    if reason is None:
        prevalence = whole.num_positive / (whole.num_positive + whole.num_negative)
        counts = _add_counts(bootstrap, attribute, group)
        bootstrap.add_derived(key, counts, matched(MATCHED[metric], prevalence))
    return Planned(
        key=key, num_positive=rows.num_positive, num_negative=rows.num_negative, reason=reason
    )


def _plan_spd(bootstrap: PatientBootstrap, attribute: _Attribute, group: str) -> Planned:
    """Accuracy of a group minus the size-weighted mean accuracy of the others.

    Source: statistical parity difference as in arXiv 2302.01622; with two sexes it is, for F,
    accuracy of F minus accuracy of M. Every other group counts, however small.
    """
    rows, reason = attribute.groups[group], attribute.reason(group, "accuracy")
    others = [
        other
        for other, each in attribute.groups.items()
        if other not in (group, *NOT_COMPARED) and len(each.scores)
    ]
    if reason is None and (group in NOT_COMPARED or not others):
        reason = not_estimable("there is no other group to compare with")
    key = ("spd", attribute.scope(group), rows.column.name)
    if reason is None:
        counts = [
            count for each in (group, *others) for count in _add_counts(bootstrap, attribute, each)
        ]
        bootstrap.add_derived(key, counts, _spd)
    return Planned(
        key=key, num_positive=rows.num_positive, num_negative=rows.num_negative, reason=reason
    )


def _add_counts(
    bootstrap: PatientBootstrap, attribute: _Attribute, group: str
) -> tuple[Hashable, ...]:
    assert attribute.threshold is not None
    return add_counts(
        bootstrap,
        attribute.scope(group),
        attribute.column,
        threshold=attribute.threshold,
        member_N=attribute.groups[group].rows_N,
    )


def _spd(*counts: np.ndarray) -> np.ndarray:
    accuracy = RATES["accuracy"].formula
    size = len(COUNTS)
    others = [np.sum(counts[size + start :: size], axis=0) for start in range(size)]
    return accuracy(*counts[:size]) - accuracy(*others)
