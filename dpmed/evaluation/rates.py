"""Metrics of thresholded predictions, as ratios of four counts: TP, FP, positives, negatives.

All of them are linear in the patients' weights before the division, so the bootstrap gets them
from totals alone. Shared by discrimination (whole split) and fairness (groups).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

from dpmed.evaluation.bootstrap import PatientBootstrap
from dpmed.evaluation.predictions import LabelColumn

COUNTS = ("true_positives", "false_positives", "positives", "negatives")


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A metric of counts.

    Args:
        formula: (TP, FP, positives, negatives) to the value, elementwise.
        needs_positives: whether a table without positives leaves it undefined.
        needs_negatives: likewise.
    """

    formula: Callable[..., np.ndarray]
    needs_positives: bool = True
    needs_negatives: bool = True


RATES: dict[str, Rate] = {
    "tpr": Rate(formula=lambda tp, fp, p, n: tp / p, needs_negatives=False),
    "fpr": Rate(formula=lambda tp, fp, p, n: fp / n, needs_positives=False),
    "sensitivity": Rate(formula=lambda tp, fp, p, n: tp / p, needs_negatives=False),
    "specificity": Rate(formula=lambda tp, fp, p, n: 1 - fp / n, needs_positives=False),
    "f1": Rate(formula=lambda tp, fp, p, n: 2 * tp / (tp + fp + p)),
    "balanced_accuracy": Rate(formula=lambda tp, fp, p, n: (tp / p + 1 - fp / n) / 2),
    "accuracy": Rate(formula=lambda tp, fp, p, n: (tp + n - fp) / (p + n)),
    "selection_rate": Rate(formula=lambda tp, fp, p, n: (tp + fp) / (p + n)),
    "underdiagnosis": Rate(formula=lambda tp, fp, p, n: fp / n, needs_positives=False),
    "overdiagnosis": Rate(formula=lambda tp, fp, p, n: 1 - tp / p, needs_negatives=False),
}


def matched(metric: str, prevalence: float) -> Callable[..., np.ndarray]:
    """Accuracy or selection rate as if a group had this prevalence.

    The limit of resampling the group's positives and negatives to the prevalence many times over,
    without the noise of doing so. TPR, FPR and AUROC do not depend on prevalence.
    """
    formula = RATES[metric].formula

    def at_prevalence(tp: np.ndarray, fp: np.ndarray, p: np.ndarray, n: np.ndarray) -> np.ndarray:
        rest = 1 - prevalence
        return formula(prevalence * tp / p, rest * fp / n, prevalence, rest)

    return at_prevalence


def add_counts(
    bootstrap: PatientBootstrap,
    scope: Hashable,
    column: LabelColumn,
    *,
    threshold: float,
    member_N: np.ndarray,
) -> tuple[Hashable, ...]:
    """Registers the four counts of one label in one group; returns their keys.

    A score at the threshold is called positive.
    """
    rows_N = member_N & column.known_N
    called_N = column.scores_N >= threshold
    masks = (
        rows_N & called_N & column.positive_N,
        rows_N & called_N & ~column.positive_N,
        rows_N & column.positive_N,
        rows_N & ~column.positive_N,
    )
    keys = tuple((count, scope, column.name, threshold) for count in COUNTS)
    for key, mask_N in zip(keys, masks, strict=True):
        bootstrap.add_total(key, mask_N)
    return keys


def sum_formula(formula: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """The same metric of pooled labels: counts of every label come in turn and are added up."""

    def pooled(*counts: np.ndarray) -> np.ndarray:
        return formula(*(np.sum(counts[start :: len(COUNTS)], axis=0) for start in range(4)))

    return pooled
