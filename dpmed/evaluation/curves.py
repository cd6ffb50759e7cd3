"""Curves with a pointwise band from the patient bootstrap: reliability and ROC, and binned error.

Each is a function of patient weights, as `bootstrap.PatientBootstrap.add_statistic` takes it:
images are counted once into bins [K, patients], and one sparse product with the weights gives the
bins of every resample. Shapes: N images, P patients, K bins or points, B resamples.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from dpmed.evaluation.bootstrap import PatientBootstrap
from dpmed.evaluation.estimability import Cases, Minimum
from dpmed.evaluation.estimates import PlannedCurve

NUM_BINS = 15
ROC_GRID = np.concatenate([[0, 0.002, 0.005], np.linspace(0.01, 1, 100)])  # of FPR


def plan_reliability(bootstrap: PatientBootstrap, rows: Cases) -> PlannedCurve:
    """Registers the observed frequency in bins of equal mass, against the mean prediction."""
    reason = rows.reason(Minimum())
    if reason is not None:
        return PlannedCurve(key=None, name="observed", reason=reason)
    key = ("reliability", rows.column.name)
    bin_N = equal_mass_bins(rows.scores)
    images_KP = _binned(bootstrap, rows, bin_N, np.ones(len(bin_N)))
    positives_KP = _binned(bootstrap, rows, bin_N, rows.positive)
    bootstrap.add_statistic(
        key, lambda weights_PB: _ratio(positives_KP @ weights_PB, images_KP @ weights_PB)
    )
    images_K = np.bincount(bin_N)
    predicted_K = np.bincount(bin_N, weights=rows.scores) / images_K
    return PlannedCurve(
        key=key, name="observed", fields={"predicted": predicted_K, "num_images": images_K}
    )


def plan_roc(bootstrap: PatientBootstrap, rows: Cases) -> PlannedCurve:
    """Registers the TPR at a grid of FPRs, linear between the points of a thinned ROC curve."""
    reason = rows.reason(Minimum(), needs_ranking=True)
    if reason is not None:
        return PlannedCurve(key=None, name="tpr", reason=reason)
    key = ("roc", rows.column.name)
    thresholds_K = _roc_thresholds(rows)
    # A score falls into the step of the first, that is the highest, threshold that it reaches.
    step_N = np.searchsorted(-thresholds_K, -rows.scores, side="left")
    positives_KP = _binned(bootstrap, rows, step_N, rows.positive)
    negatives_KP = _binned(bootstrap, rows, step_N, ~rows.positive)

    def tpr_on_grid(weights_PB: np.ndarray) -> np.ndarray:
        tpr_BK = _cumulative(positives_KP @ weights_PB).T
        fpr_BK = _cumulative(negatives_KP @ weights_PB).T
        pairs = zip(fpr_BK, tpr_BK, strict=True)
        return np.stack([np.interp(ROC_GRID, fpr_K, tpr_K) for fpr_K, tpr_K in pairs], axis=1)

    bootstrap.add_statistic(key, tpr_on_grid)
    return PlannedCurve(key=key, name="tpr", fields={"fpr": ROC_GRID})


def equal_mass_bins(scores_N: np.ndarray) -> np.ndarray:
    """The bin of each score: at most `NUM_BINS` of about equal size, equal scores together."""
    edges = np.quantile(scores_N, np.linspace(0, 1, NUM_BINS + 1)[1:-1])
    return np.unique(np.searchsorted(edges, scores_N, side="right"), return_inverse=True)[1]


class BinnedError:
    """Expected calibration error over bins of equal mass, as a function of patient weights.

    The bins are those of the table itself in every resample.
    """

    def __init__(self, bootstrap: PatientBootstrap, rows: Cases) -> None:
        bin_N = equal_mass_bins(rows.scores)
        residual_N = rows.positive - rows.scores
        self._residuals_KP = _binned(bootstrap, rows, bin_N, residual_N)
        self._images_1P = _binned(bootstrap, rows, np.zeros_like(bin_N), np.ones(len(bin_N)))

    def __call__(self, weights_PB: np.ndarray) -> np.ndarray:
        """The error of each resample, [B]; NaN where no image was drawn."""
        error_B = np.abs(self._residuals_KP @ weights_PB).sum(axis=0, dtype=np.float64)
        return _ratio(error_B, (self._images_1P @ weights_PB)[0])


def _roc_thresholds(rows: Cases) -> np.ndarray:
    """Observed scores, descending, at the grid's quantiles of each class; the last is the least."""
    levels = 1 - ROC_GRID
    by_class = (rows.scores[rows.positive], rows.scores[~rows.positive])
    chosen = [np.quantile(scores, levels, method="inverted_cdf") for scores in by_class]
    return np.unique(np.concatenate([*chosen, [rows.scores.min()]]))[::-1]


def _binned(
    bootstrap: PatientBootstrap, rows: Cases, bin_N: np.ndarray, values_N: np.ndarray
) -> sparse.csr_array:
    shape = (int(bin_N.max()) + 1, bootstrap.num_patients)
    where = (bin_N, bootstrap.patients_N[rows.rows_N])
    return sparse.coo_array((values_N.astype(np.float32), where), shape=shape).tocsr()


def _cumulative(counts_KB: np.ndarray) -> np.ndarray:
    """Shares passed after each step, from the origin on: [K + 1, B], NaN where there are none."""
    passed_KB = np.pad(np.cumsum(counts_KB, axis=0, dtype=np.float64), ((1, 0), (0, 0)))
    return _ratio(passed_KB, np.broadcast_to(passed_KB[-1], passed_KB.shape))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
