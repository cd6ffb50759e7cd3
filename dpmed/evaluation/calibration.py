"""Calibration: whether a predicted probability is the frequency that it claims to be.

Brier score and log-loss; slope and intercept of the outcome's logistic regression on the logit of
the prediction (1 and 0 when calibrated), and the intercept with the slope held at 1 (calibration
in the large); expected calibration error over bins of equal mass. For a whole split or any group.
Planned here, computed by the split's patient bootstrap; the reliability curve is in `curves.py`.

Refitting a regression in every resample would cost an iteration over all images each; instead each
resample takes one Newton step from the fit on the table, with its own gradient and Hessian. These
are totals, and the step is exact to first order in the resampling.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from scipy.special import expit, logit

from dpmed.evaluation.bootstrap import PatientBootstrap
from dpmed.evaluation.curves import BinnedError
from dpmed.evaluation.estimability import Cases, Minimum
from dpmed.evaluation.estimates import Planned, not_estimable

METRICS = ("brier", "log_loss", "slope", "intercept", "in_the_large", "ece")
CLOSEST_TO_CERTAIN = 1e-6  # predictions are clipped this far from 0 and 1 before logit and log
MAX_NEWTON_STEPS = 50
STEEPEST_SLOPE = 100.0  # beyond it the classes are as good as separated and the fit has no end


def plan_calibration(
    bootstrap: PatientBootstrap, scope: Hashable, rows: Cases, *, minimum: Minimum
) -> dict[str, Planned]:
    """Registers every calibration metric of one label on some rows; returns them by name."""
    keys = {metric: (metric, scope, rows.column.name) for metric in METRICS}
    reasons: dict[str, str | None] = dict.fromkeys(METRICS, rows.reason(minimum))
    if reasons["brier"] is None:
        _add_scores(bootstrap, rows, keys)
        bootstrap.add_statistic(keys["ece"], BinnedError(bootstrap, rows))
        reasons |= _add_fits(bootstrap, rows, keys)
    return {
        metric: Planned(
            key=keys[metric],
            num_positive=rows.num_positive,
            num_negative=rows.num_negative,
            reason=reasons[metric],
            # Resampling only ever adds to an error of absolute values; reflection takes it off.
            reflected=metric == "ece",
        )
        for metric in METRICS
    }


def _add_scores(bootstrap: PatientBootstrap, rows: Cases, keys: Mapping[str, Hashable]) -> None:
    probability = rows.scores.clip(CLOSEST_TO_CERTAIN, 1 - CLOSEST_TO_CERTAIN)
    likelihood = np.where(rows.positive, probability, 1 - probability)
    images = _add_total(bootstrap, rows, ("images", keys["brier"]), np.ones(len(likelihood)))
    for metric, losses in (
        ("brier", (rows.positive - rows.scores) ** 2),
        ("log_loss", -np.log(likelihood)),
    ):
        total = _add_total(bootstrap, rows, ("sum", keys[metric]), losses)
        bootstrap.add_derived(keys[metric], (total, images), np.divide)


def _add_fits(
    bootstrap: PatientBootstrap, rows: Cases, keys: Mapping[str, Hashable]
) -> dict[str, str | None]:
    """Registers the three fitted figures; returns the reasons of those that have no fit."""
    logits = logit(rows.scores.clip(CLOSEST_TO_CERTAIN, 1 - CLOSEST_TO_CERTAIN))
    truth = rows.positive.astype(float)
    reasons: dict[str, str | None] = {}
    ones = np.ones(len(logits))
    for metrics, design, offset in (
        (("intercept", "slope"), np.stack([ones, logits]), 0 * logits),
        (("in_the_large",), ones[None], logits),
    ):
        fitted = _fit_logistic(design, truth, offset)
        if fitted is None:
            reasons |= dict.fromkeys(
                metrics, not_estimable("the regression on the logit has no finite solution")
            )
        else:
            _add_fit(bootstrap, rows, [keys[metric] for metric in metrics], design, offset, fitted)
    return reasons


def _fit_logistic(design: np.ndarray, truth: np.ndarray, offset: np.ndarray) -> np.ndarray | None:
    """Coefficients [C] of a logistic regression by Newton's method; None where it diverges."""
    coefficients = np.zeros(len(design))
    for _ in range(MAX_NEWTON_STEPS):
        mean = expit(coefficients @ design + offset)
        hessian = (design * (mean * (1 - mean))) @ design.T
        if np.linalg.cond(hessian) > 1 / np.finfo(float).eps:
            return None
        step = np.linalg.solve(hessian, design @ (truth - mean))
        coefficients += step
        if np.abs(coefficients).max() > STEEPEST_SLOPE:
            return None
        if np.abs(step).max() < 1e-10:
            return coefficients
    return None


def _add_fit(
    bootstrap: PatientBootstrap,
    rows: Cases,
    keys: Sequence[Hashable],
    design: np.ndarray,
    offset: np.ndarray,
    fitted: np.ndarray,
) -> None:
    size = len(design)
    mean = expit(fitted @ design + offset)
    terms = [
        *(design * (rows.positive - mean)),
        *(design[i] * design[j] * mean * (1 - mean) for i in range(size) for j in range(size)),
    ]
    totals = [
        _add_total(bootstrap, rows, ("term", index, keys[0]), term)
        for index, term in enumerate(terms)
    ]

    def one_step(*sums: np.ndarray) -> np.ndarray:
        gradient_BC1 = np.stack(sums[:size], axis=-1)[..., None]
        hessian_BCC = np.stack(sums[size:], axis=-1).reshape(-1, size, size)
        singular_B = np.linalg.cond(hessian_BCC) > 1 / np.finfo(float).eps
        hessian_BCC[singular_B] = np.nan
        return fitted[:, None] + np.linalg.solve(hessian_BCC, gradient_BC1)[..., 0].T

    fit = ("fit", keys[0])
    bootstrap.add_derived(fit, totals, one_step)
    for index, key in enumerate(keys):
        bootstrap.add_derived(key, (fit,), lambda values_CB, index=index: values_CB[index])


def _add_total(
    bootstrap: PatientBootstrap, rows: Cases, key: Hashable, values: np.ndarray
) -> Hashable:
    values_N = np.zeros(len(rows.rows_N))
    values_N[rows.rows_N] = values
    bootstrap.add_total(key, values_N)
    return key
