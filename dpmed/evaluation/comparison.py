"""Two models on the same images, paired: a private run and its non-private twin, or any two.

Differences are candidate minus reference, from the same resamples of patients, each with its
interval and two-sided p; adjusted p over the family of labels; equivalence where a margin was
declared. Per group, the difference says what privacy costs whom; per gap, whether it widened.
Each model keeps the thresholds frozen on its own validation split. Works from predictions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dpmed.errors import UserError
from dpmed.evaluation.bootstrap import PatientBootstrap
from dpmed.evaluation.discrimination import RANKINGS, THRESHOLDED, plan_discrimination
from dpmed.evaluation.estimability import Minimum
from dpmed.evaluation.estimates import Planned, not_estimable, resolve
from dpmed.evaluation.fairness import plan_subgroups
from dpmed.evaluation.gaps import plan_gaps
from dpmed.evaluation.groups import assign_groups
from dpmed.evaluation.predictions import label_column, match_predictions, validate_predictions
from dpmed.evaluation.testing import control_false_discoveries, equivalence, two_sided_p
from dpmed.evaluation.thresholds import Thresholds

MODELS = ("candidate", "reference")


def compare(
    candidate: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    labels: Sequence[str],
    candidate_thresholds: Thresholds,
    reference_thresholds: Thresholds,
    subgroups: Sequence[str] = ("sex", "age"),
    margin: float | None = None,
    dependence: str = "any",
    num_bootstrap: int = 2000,
    seed: int = 0,
    min_positives: int = 10,
    min_negatives: int = 10,
    age_bins: str | Sequence[float] = "private_fair_accurate",
    intersections: bool = True,
    confidence: float = 0.95,
    threads: int | None = None,
) -> dict[str, Any]:
    """Candidate minus reference for every metric of `metrics.json`, with p values.

    Args:
        candidate: predictions of one split.
        reference: predictions of another model on the same images, in any order.
        labels: the labels to compare; those of AUROC are the family that is adjusted for.
        candidate_thresholds: by label, from the candidate's own validation split.
        reference_thresholds: likewise.
        subgroups: columns of the candidate's table.
        margin: of equivalence in AUROC, declared beforehand; none, no equivalence is claimed.
        dependence: of the family's tests, see `testing.control_false_discoveries`.
        num_bootstrap: resamples of patients.
        seed: of the resampling.
        min_positives: fewer positive images than this in a group: not estimable.
        min_negatives: likewise.
        age_bins: a preset of `groups.AGE_BINS` or increasing edges in years.
        intersections: also every pair of subgroups.
        confidence: of the intervals.
        threads: of the bootstrap; never changes a result.

    Returns:
        `<metric>.<label>`, `subgroups.<attribute>.<group>.<metric>.<label>` and
        `gaps.<attribute>.<gap>.<label>` as in `metrics.json`, each entry with `p_value`.

    Raises:
        UserError: the tables hold different images or different truths.
    """
    tables = _paired_tables(candidate, reference, labels)
    thresholds = dict(zip(MODELS, (candidate_thresholds, reference_thresholds), strict=True))
    bootstrap = PatientBootstrap(
        patient_ids=candidate["patient_id"].to_numpy(),
        num_replicates=num_bootstrap,
        seed=seed,
        threads=threads,
    )
    groups = assign_groups(
        candidate, attributes=subgroups, age_bins=age_bins, intersections=intersections
    )
    minimum = Minimum(positives=min_positives, negatives=min_negatives)
    planned = {}
    for model, table in tables.items():
        columns = [label_column(table, label) for label in labels]
        whole = plan_discrimination(
            bootstrap, columns, thresholds[model], confidence=confidence, model=model
        )
        parts = plan_subgroups(
            bootstrap, columns, groups, thresholds[model], minimum=minimum, model=model
        )
        planned[model] = {
            **{metric: whole[metric] for metric in (*RANKINGS, *THRESHOLDED)},
            "subgroups": parts,
            "gaps": plan_gaps(bootstrap, parts),
        }
    differences = _subtract(bootstrap, planned["candidate"], planned["reference"], _tests(margin))
    result = resolve(differences, bootstrap.run(), confidence=confidence)
    _adjust(result["auroc"], labels, dependence)
    return result


def _paired_tables(
    candidate: pd.DataFrame, reference: pd.DataFrame, labels: Sequence[str]
) -> dict[str, pd.DataFrame]:
    for model, table in zip(MODELS, (candidate, reference), strict=True):
        validate_predictions(table, labels=labels, source=f"{model} predictions")
    reference = match_predictions(reference, candidate["image"], source="reference predictions")
    for column in ("patient_id", *(f"label_{label}" for label in labels)):
        ours, theirs = candidate[column].to_numpy(), reference[column].to_numpy()
        different = (ours != theirs) & ~(pd.isna(ours) & pd.isna(theirs))
        if different.any():
            image = candidate["image"].to_numpy()[different][0]
            raise UserError(
                f"The two runs disagree on {column} for {int(different.sum())} images, such as "
                f"{image}. They were not evaluated on the same table."
            )
    return {"candidate": candidate, "reference": reference}


def _tests(margin: float | None) -> Callable[[np.ndarray], dict[str, Any]]:
    def test(differences_R: np.ndarray) -> dict[str, Any]:
        found: dict[str, Any] = {"p_value": two_sided_p(differences_R)}
        if margin is not None:
            found["equivalence"] = equivalence(differences_R, margin=margin)
        return found

    return test


def _subtract(
    bootstrap: PatientBootstrap,
    candidate: Any,
    reference: Any,
    test: Callable[[np.ndarray], dict[str, Any]],
) -> Any:
    """The plan of differences: the same nested dictionary as either model's."""
    if not isinstance(candidate, Planned):
        return {
            key: _subtract(bootstrap, each, reference[key], test) for key, each in candidate.items()
        }
    reason = candidate.reason or reference.reason
    left_out = [each.extra.get("labels_left_out") for each in (candidate, reference)]
    if reason is None and left_out[0] != left_out[1]:
        reason = not_estimable("the two models' means are not over the same labels")
    key = ("difference", candidate.key, reference.key)
    if reason is None:
        bootstrap.add_derived(key, (candidate.key, reference.key), np.subtract)
    return Planned(
        key=key,
        num_positive=candidate.num_positive,
        num_negative=candidate.num_negative,
        reason=reason,
        extra={**_named("candidate", candidate), **_named("reference", reference)},
        summarise=test,
    )


def _named(model: str, planned: Planned) -> dict[str, Any]:
    """Which groups a gap compares, where it is one."""
    return {
        f"{model}_{name}": planned.extra[name]
        for name in ("highest_group", "lowest_group")
        if name in planned.extra
    }


def _adjust(auroc: dict[str, Any], labels: Sequence[str], dependence: str) -> None:
    """Adds the adjusted p of the family, the labels' AUROCs, to their entries."""
    family = {label: auroc[label]["p_value"] for label in labels if "p_value" in auroc[label]}
    for label, adjusted in control_false_discoveries(family, dependence=dependence).items():
        auroc[label]["p_adjusted"] = adjusted
        auroc[label]["family_size"] = len(family)
