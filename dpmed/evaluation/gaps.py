"""Gaps between groups: the worst and the best group of each metric, and their difference.

The two groups are those of the point estimates and stay the same in every resample. Taking the
largest minus the smallest anew in each resample would make a gap of zero impossible and its
interval too high. Equalised odds is the larger of the TPR gap and the FPR gap; demographic parity
is the gap of selection rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpmed.evaluation.bootstrap import PatientBootstrap
from dpmed.evaluation.estimates import Planned, not_estimable
from dpmed.evaluation.groups import NOT_COMPARED

GAPS = {
    "auroc": "auroc",
    "tpr": "tpr",
    "fpr": "fpr",
    "accuracy": "accuracy",
    "accuracy_matched": "accuracy_matched",
    "demographic_parity": "selection_rate",
    "demographic_parity_matched": "selection_rate_matched",
    "underdiagnosis": "underdiagnosis",
    "overdiagnosis": "overdiagnosis",
}
LOW_IS_WORST = ("auroc", "tpr", "accuracy", "accuracy_matched")
NEITHER_IS_WORST = ("demographic_parity", "demographic_parity_matched")


def plan_gaps(bootstrap: PatientBootstrap, subgroups: Mapping[str, Any]) -> dict[str, Any]:
    """Registers the gaps; returns `<attribute>.<gap>.<label>` with `Planned` leaves.

    Args:
        bootstrap: the one that `plan_subgroups` used.
        subgroups: what `plan_subgroups` returned.
    """
    return {name: _plan_attribute(bootstrap, groups) for name, groups in subgroups.items()}


def _plan_attribute(bootstrap: PatientBootstrap, groups: Mapping[str, Any]) -> dict[str, Any]:
    planned: dict[str, Any] = {}
    for gap, metric in GAPS.items():
        labels = dict.fromkeys(
            label for metrics in groups.values() for label in metrics.get(metric, {})
        )
        if labels:
            planned[gap] = {
                label: _plan_gap(bootstrap, gap, {g: m[metric][label] for g, m in groups.items()})
                for label in labels
            }
    planned["equalised_odds"] = {
        label: _plan_equalised_odds(bootstrap, planned["tpr"][label], planned["fpr"][label])
        for label in planned["tpr"]
    }
    return planned


def _plan_gap(bootstrap: PatientBootstrap, gap: str, by_group: Mapping[str, Planned]) -> Planned:
    used = {
        group: each
        for group, each in by_group.items()
        if each.reason is None and group not in NOT_COMPARED
    }
    num_positive = sum(each.num_positive for each in used.values())
    num_negative = sum(each.num_negative for each in used.values())
    if len(used) < 2:
        return Planned(
            key=None,
            num_positive=num_positive,
            num_negative=num_negative,
            reason=not_estimable(f"{len(used)} groups are, two are needed"),
        )
    values = {group: _value(bootstrap, each) for group, each in used.items()}
    low = min(values, key=lambda group: values[group])
    high = max(values, key=lambda group: values[group])
    key = ("gap", used[high].key, used[low].key)
    bootstrap.add_derived(key, (used[high].key, used[low].key), np.subtract)
    names: dict[str, Any] = {"highest_group": high, "lowest_group": low}
    if gap not in NEITHER_IS_WORST:
        names["worst_group"] = low if gap in LOW_IS_WORST else high
    left_out = [group for group in by_group if group not in used]
    if left_out:
        names["groups_left_out"] = left_out
    return Planned(key=key, num_positive=num_positive, num_negative=num_negative, extra=names)


def _plan_equalised_odds(bootstrap: PatientBootstrap, tpr: Planned, fpr: Planned) -> Planned:
    reason = tpr.reason or fpr.reason
    key = ("equalised_odds", tpr.key, fpr.key)
    if reason is None:
        bootstrap.add_derived(key, (tpr.key, fpr.key), np.maximum)
    return Planned(
        key=key, num_positive=tpr.num_positive, num_negative=fpr.num_negative, reason=reason
    )


def _value(bootstrap: PatientBootstrap, planned: Planned) -> float:
    if planned.value is not None:
        return planned.value
    assert planned.key is not None
    return bootstrap.point(planned.key)
