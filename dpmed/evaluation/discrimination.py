"""Discrimination of a whole split: per label, macro (mean of labels) and micro (labels pooled).

AUROC and average precision need only scores. Sensitivity, specificity, F1 and balanced accuracy
need the thresholds that were frozen on validation; the same metrics at a threshold refitted on
the split itself are kept apart, under `oracle`. Everything is planned here and computed by one
patient bootstrap (`bootstrap.py`); missing labels count as neither class.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dpmed.evaluation.bootstrap import PatientBootstrap
from dpmed.evaluation.delong import delong, delong_interval
from dpmed.evaluation.estimability import Cases, Minimum, cases
from dpmed.evaluation.estimates import Planned, not_estimable
from dpmed.evaluation.predictions import LabelColumn
from dpmed.evaluation.ranking import WeightedAuroc, WeightedAveragePrecision
from dpmed.evaluation.rates import RATES, add_counts, sum_formula
from dpmed.evaluation.thresholds import Thresholds, youden

RANKINGS: dict[str, type[WeightedAuroc] | type[WeightedAveragePrecision]] = {
    "auroc": WeightedAuroc,
    "average_precision": WeightedAveragePrecision,
}
THRESHOLDED = ("sensitivity", "specificity", "f1", "balanced_accuracy")


def plan_discrimination(
    bootstrap: PatientBootstrap,
    columns: Sequence[LabelColumn],
    thresholds: Thresholds,
    *,
    confidence: float,
    model: str = "",
) -> dict[str, Any]:
    """Registers every metric of the split; returns `<metric>.<label>` with `Planned` leaves.

    Args:
        bootstrap: of the split's rows.
        columns: the labels.
        thresholds: by label; None where there is none.
        confidence: of the DeLong intervals that stand beside AUROC where each patient has one
            image.
        model: tells models apart that share a bootstrap.
    """
    rows = [cases(column) for column in columns]
    planned: dict[str, Any] = {
        metric: _plan_ranking(bootstrap, metric, (model, "split"), rows) for metric in RANKINGS
    }
    if bootstrap.num_patients == len(bootstrap.patients_N):
        for each in rows:
            label = each.column.name
            planned["auroc"][label] = _with_delong(planned["auroc"][label], each, confidence)
    oracle = {
        each.column.name: youden(each)
        for each in rows
        if each.reason(Minimum(), needs_ranking=True) is None
    }
    for metric in THRESHOLDED:
        planned[metric] = _plan_rate(bootstrap, metric, (model, "split"), rows, thresholds)
    planned["oracle"] = {
        metric: _plan_rate(bootstrap, metric, (model, "oracle"), rows, oracle)
        for metric in THRESHOLDED
    }
    return planned


def add_ranking(bootstrap: PatientBootstrap, metric: str, scope: Hashable, rows: Cases) -> Hashable:
    """Registers AUROC or average precision of one label on some rows; returns its key."""
    key = (metric, scope, rows.column.name)
    statistic = RANKINGS[metric](
        scores_N=rows.scores,
        positive_N=rows.positive,
        patients_N=bootstrap.patients_N[rows.rows_N],
        num_patients=bootstrap.num_patients,
    )
    bootstrap.add_statistic(key, statistic)
    return key


def plan_macro(
    bootstrap: PatientBootstrap, scope: Hashable, by_label: dict[str, Planned]
) -> Planned:
    """The mean over the labels that are estimable; names those that are not."""
    used = {label: each for label, each in by_label.items() if each.reason is None}
    left_out = [label for label in by_label if label not in used]
    if not used:
        return Planned(
            key=None, num_positive=0, num_negative=0, reason=not_estimable("no label is")
        )
    key = ("macro", scope, tuple(each.key for each in used.values()))
    bootstrap.add_derived(
        key, [each.key for each in used.values()], lambda *values: np.mean(values, axis=0)
    )
    return Planned(
        key=key,
        num_positive=sum(each.num_positive for each in used.values()),
        num_negative=sum(each.num_negative for each in used.values()),
        extra={"labels_left_out": left_out} if left_out else {},
    )


def _plan_ranking(
    bootstrap: PatientBootstrap, metric: str, scope: Hashable, rows: Sequence[Cases]
) -> dict[str, Planned]:
    planned: dict[str, Planned] = {}
    for each in rows:
        reason = each.reason(Minimum(), needs_ranking=True)
        planned[each.column.name] = Planned(
            key=add_ranking(bootstrap, metric, scope, each) if reason is None else None,
            num_positive=each.num_positive,
            num_negative=each.num_negative,
            reason=reason,
        )
    macro = plan_macro(bootstrap, scope, planned)
    micro = _plan_micro_ranking(
        bootstrap,
        metric,
        scope,
        [each for each in rows if planned[each.column.name].reason is None],
    )
    return {**planned, "macro": macro, "micro": micro}


def _plan_micro_ranking(
    bootstrap: PatientBootstrap, metric: str, scope: Hashable, rows: Sequence[Cases]
) -> Planned:
    if not rows:
        return Planned(
            key=None, num_positive=0, num_negative=0, reason=not_estimable("no label is")
        )
    key = (metric, scope, "micro")
    statistic = RANKINGS[metric](
        scores_N=np.concatenate([each.scores for each in rows]),
        positive_N=np.concatenate([each.positive for each in rows]),
        patients_N=np.concatenate([bootstrap.patients_N[each.rows_N] for each in rows]),
        num_patients=bootstrap.num_patients,
    )
    bootstrap.add_statistic(key, statistic)
    return Planned(
        key=key,
        num_positive=sum(each.num_positive for each in rows),
        num_negative=sum(each.num_negative for each in rows),
    )


def _with_delong(planned: Planned, rows: Cases, confidence: float) -> Planned:
    if planned.reason is not None or min(rows.num_positive, rows.num_negative) < 2:
        return planned
    aurocs, covariance = delong(
        rows.scores[None], rows.positive, patient_ids=np.arange(len(rows.scores))
    )
    low, high = delong_interval(aurocs[0], covariance[0, 0], confidence=confidence)
    return replace(planned, extra={"delong_low": low, "delong_high": high})


def _plan_rate(
    bootstrap: PatientBootstrap,
    metric: str,
    scope: Hashable,
    rows: Sequence[Cases],
    thresholds: Thresholds,
) -> dict[str, Planned]:
    rate = RATES[metric]
    planned: dict[str, Planned] = {}
    inputs: list[Hashable] = []
    for each in rows:
        label, threshold = each.column.name, thresholds.get(each.column.name)
        reason = each.reason(
            Minimum(), needs_positives=rate.needs_positives, needs_negatives=rate.needs_negatives
        )
        if reason is None and threshold is None:
            reason = not_estimable("there is no threshold for this label")
        key = None
        if reason is None and threshold is not None:
            counts = add_counts(
                bootstrap, scope, each.column, threshold=threshold, member_N=each.rows_N
            )
            key = (metric, scope, label)
            bootstrap.add_derived(key, counts, rate.formula)
            inputs += counts
        planned[label] = Planned(
            key=key,
            num_positive=each.num_positive,
            num_negative=each.num_negative,
            reason=reason,
        )
    macro = plan_macro(bootstrap, scope, planned)
    micro_key = (metric, scope, "micro")
    if inputs:
        bootstrap.add_derived(micro_key, inputs, sum_formula(rate.formula))
    micro = Planned(
        key=micro_key,
        num_positive=macro.num_positive,
        num_negative=macro.num_negative,
        reason=macro.reason,
    )
    return {**planned, "macro": macro, "micro": micro}
