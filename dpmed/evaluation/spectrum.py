"""How many dimensions a representation uses: six answers that are not the same number.

"Effective rank" without its formula is meaningless (one synthetic set reads 4.99, 74.6 and 1.73
by the three formulas below), so each has a name of its own. All are functions of the eigenvalues
of a covariance, or of the uncentred second moment for RankMe. Shapes: D eigenvalues, descending.
"""

from __future__ import annotations

import numpy as np

from dpmed.evaluation.moments import Moments

FIRST_RANK, LAST_RANK = 3, 100  # of the power law of alpha-ReQ


def measure_spectrum(moments: Moments) -> dict[str, float]:
    """Every spectral metric of one encoder's rows, by name; NaN where it does not exist."""
    centred_D = eigenvalues(moments.covariance)
    return {
        "effective_dimension": effective_dimension(centred_D),
        "effective_rank_eigenvalues": _exponential_entropy(centred_D),
        "effective_rank_singular_values": _exponential_entropy(np.sqrt(centred_D)),
        "rankme": _exponential_entropy(np.sqrt(eigenvalues(moments.second_moment))),
        "alpha_req": alpha_req(centred_D),
    }


def eigenvalues(matrix_DD: np.ndarray) -> np.ndarray:
    """Eigenvalues [D] of a positive semidefinite matrix, descending; rounding below zero is 0."""
    values_D = np.linalg.eigvalsh(matrix_DD)[::-1]
    floor = values_D[0] * len(values_D) * np.finfo(float).eps
    return np.where(values_D > floor, values_D, 0.0)


def effective_dimension(values_D: np.ndarray) -> float:
    """Spectral effective dimension (tr S)^2 / ||S||_F^2, between 1 and D.

    Source: DP-RGMI, arXiv 2603.01098; elsewhere called the participation ratio.
    """
    squares = np.sum(values_D**2)
    return float(np.sum(values_D) ** 2 / squares) if squares > 0 else float("nan")


def alpha_req(values_D: np.ndarray) -> float:
    """Exponent of the eigenvalues' power law, by least squares of log value on log rank.

    Ranks 3 to 100, as far as eigenvalues are positive, weighted by 1 / rank so that each octave
    counts alike; NaN with fewer than three ranks.

    Source: alpha-ReQ, Agrawal et al., NeurIPS 2022.
    """
    ranks = np.arange(FIRST_RANK, min(LAST_RANK, int(np.count_nonzero(values_D))) + 1)
    if len(ranks) < 3:
        return float("nan")
    x, y = np.log(ranks), np.log(values_D[ranks - 1])
    x = x - np.average(x, weights=1 / ranks)
    return float(-np.sum(x * y / ranks) / np.sum(x * x / ranks))


def _exponential_entropy(values_D: np.ndarray) -> float:
    """Exponential of the entropy of the values as shares of their sum.

    Of singular values, centred: effective rank of Roy and Vetterli 2007. Uncentred: RankMe,
    Garrido et al. 2023. Of eigenvalues: a third quantity that goes by the same name.
    """
    shares = values_D[values_D > 0] / values_D.sum()
    return float(np.exp(-np.sum(shares * np.log(shares)))) if len(shares) else float("nan")
