"""DeLong's variance of AUROCs, for tables with one image per patient only.

It treats images as independent, so with several images of a patient its intervals are too short;
it refuses such tables, and the patient bootstrap is used instead. Shapes: M models, N images.

Source: DeLong et al., Biometrics 1988; the midrank form of Sun and Xu, IEEE SPL 2014.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm, rankdata

from dpmed.errors import UserError


def delong(
    scores_MN: np.ndarray, positive_N: np.ndarray, *, patient_ids: Sequence[str] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs [M] of models on the same images, and their covariance [M, M].

    Args:
        scores_MN: one row a model.
        positive_N: boolean truth; at least two of each class.
        patient_ids: whose image each is.

    Raises:
        UserError: a patient has several images, or a class fewer than two.
    """
    num_patients = len(np.unique(np.asarray(patient_ids, str)))
    if num_patients < len(positive_N):
        raise UserError(
            f"DeLong needs one image per patient; here {num_patients} patients have "
            f"{len(positive_N)} images. Use the patient bootstrap."
        )
    num_positive = int(positive_N.sum())
    num_negative = len(positive_N) - num_positive
    if min(num_positive, num_negative) < 2:
        raise UserError(
            f"DeLong needs two images of each class; here are {num_positive} positives and "
            f"{num_negative} negatives."
        )
    positives, negatives = scores_MN[:, positive_N], scores_MN[:, ~positive_N]
    joint = rankdata(np.concatenate([positives, negatives], axis=1), axis=1)
    beaten = (joint[:, :num_positive] - rankdata(positives, axis=1)) / num_negative
    beating = 1 - (joint[:, num_positive:] - rankdata(negatives, axis=1)) / num_positive
    covariance = np.atleast_2d(np.cov(beaten)) / num_positive
    covariance = covariance + np.atleast_2d(np.cov(beating)) / num_negative
    return beaten.mean(axis=1), covariance


def delong_interval(auroc: float, variance: float, *, confidence: float) -> tuple[float, float]:
    """A normal interval on the logit scale, which keeps it inside (0, 1).

    At an AUROC of exactly 0 or 1 the variance is 0 and the interval is that point.
    """
    if auroc in (0, 1):
        return auroc, auroc
    centre = np.log(auroc / (1 - auroc))
    half = norm.ppf((1 + confidence) / 2) * np.sqrt(variance) / (auroc * (1 - auroc))
    low, high = 1 / (1 + np.exp(-(centre + np.array([-half, half]))))
    return float(low), float(high)


def delong_test(aurocs_2: np.ndarray, covariance_22: np.ndarray) -> float:
    """Two-sided p of equal AUROCs; 1 when the two models rank every pair alike."""
    variance = covariance_22[0, 0] + covariance_22[1, 1] - 2 * covariance_22[0, 1]
    difference = abs(aurocs_2[0] - aurocs_2[1])
    if variance <= np.finfo(float).eps:
        return 1.0 if difference < np.finfo(float).eps else 0.0
    return float(2 * norm.sf(difference / np.sqrt(variance)))
