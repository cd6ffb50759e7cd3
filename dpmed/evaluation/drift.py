"""How far a trained encoder has moved from its initialisation, from joint moments alone.

Rows are [initial, trained] embeddings of one image side by side, each of unit length, so their
joint mean and covariance hold everything: distances, inner products and both spectra.
Shapes: D features of each encoder, 2 D of a joint row.
"""

from __future__ import annotations

import numpy as np

from dpmed.evaluation.moments import Moments
from dpmed.evaluation.spectrum import eigenvalues


def measure_drift(joint: Moments) -> dict[str, float]:
    """Every drift metric, by name.

    - displacement: mean squared distance of the two unit vectors, 0 to 4 (DP-RGMI,
      arXiv 2603.01098).
    - scale_normalised_drift: displacement over the initial encoder's own spread.
    - cosine_drift: one minus the mean cosine, which is displacement / 2.
    - procrustes_residual: what of the centred trained embeddings no rotation and scaling of the
      initial ones explains, 0 to 1 (the disparity of `scipy.spatial.procrustes`).
    - linear_cka: linear centred kernel alignment, 0 to 1 (Kornblith et al. 2019).
    """
    size = len(joint.mean_D) // 2
    covariance = joint.covariance
    initial, trained = covariance[:size, :size], covariance[size:, size:]
    cross = covariance[:size, size:]
    apart_D = joint.mean_D[size:] - joint.mean_D[:size]
    spread = np.trace(initial) + np.trace(trained)
    displacement = spread - 2 * np.trace(cross) + apart_D @ apart_D
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "displacement": float(displacement),
            "scale_normalised_drift": float(displacement / np.trace(initial)),
            "cosine_drift": float(displacement / 2),
            "procrustes_residual": float(
                1 - _nuclear_norm(cross) ** 2 / (np.trace(initial) * np.trace(trained))
            ),
            "linear_cka": float(
                np.sum(cross**2) / (np.linalg.norm(initial) * np.linalg.norm(trained))
            ),
        }


def _nuclear_norm(matrix_DD: np.ndarray) -> float:
    # Through the symmetric eigenproblem: 1e-8 of the largest singular value is precise enough,
    # and it takes 0.1 s where the singular values of 768 x 768 take seconds on a busy machine.
    return float(np.sqrt(eigenvalues(matrix_DD.T @ matrix_DD)).sum())
