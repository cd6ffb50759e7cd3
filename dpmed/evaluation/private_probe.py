"""A linear probe under differential privacy, to stand beside the non-private one.

Output perturbation: L2-regularised logistic regression has one minimum, and one patient can move
it only so far; Gaussian noise of that size hides the patient. No training loop and no tuning, so
the probe's epsilon is exactly what it says: for the training patients, through the probe's weights
alone, and to be composed with the epsilon of an encoder that saw the same patients.
Shapes: N images, D features, L labels.

Source: Chaudhuri, Monteleoni and Sarwate, JMLR 2011, algorithm 1, with the Gaussian mechanism of
Balle and Wang, ICML 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq, minimize
from scipy.special import expit

from dpmed.errors import UserError
from dpmed.evaluation.probe import REGULARISATION
from dpmed.privacy.gaussian_dp import gaussian_delta
from dpmed.privacy.randomness import SecretStream

LARGEST_GRADIENT = 1e-4  # where the optimiser must have arrived; part of the sensitivity


@dataclass(frozen=True, kw_only=True)
class PrivateProbe:
    """Noisy weights of one classifier per label, and what they guarantee.

    Args:
        weights_LD: of the features and, in the last column, of the constant.
        labels: one per row.
        epsilon: for adding or removing one training patient.
        delta: likewise.
        noise_multiplier: standard deviation of the noise over the sensitivity.
        private: false when the noise came from an injected key.
    """

    weights_LD: np.ndarray
    labels: Sequence[str]
    epsilon: float
    delta: float
    noise_multiplier: float
    private: bool

    def predictions(self, test_ND: np.ndarray, test: pd.DataFrame) -> pd.DataFrame:
        """The test predictions with this probe's probabilities in place of the model's."""
        probed = test.copy()
        probabilities_NL = expit(_with_constant(test_ND) @ self.weights_LD.T)
        for index, label in enumerate(self.labels):
            probed[f"prob_{label}"] = probabilities_NL[:, index].astype(np.float32)
        return probed


def fit_private_probe(
    train_ND: np.ndarray,
    train: pd.DataFrame,
    *,
    labels: Sequence[str],
    epsilon: float,
    delta: float,
    stream: SecretStream,
    regularisation: float = REGULARISATION,
) -> PrivateProbe:
    """Fits every label's classifier and adds noise once, for all labels together.

    Args:
        train_ND: unit embeddings of the training images.
        train: their predictions table: patient ids and truth.
        labels: what to probe for; a missing truth contributes nothing.
        epsilon: for all labels together.
        delta: likewise.
        stream: of the noise; `SecretStream.from_os()`.
        regularisation: C of the objective C * loss + |w|^2 / 2; a public constant, not tuned.

    Guarantee:
        (epsilon, delta)-differential privacy for adding or removing one patient with all images,
        in real arithmetic. A patient's images share a weight of 1 and every input has length at
        most 1, so one patient changes the gradient of a 1-strongly convex objective by at most C
        and its minimum by at most C; the distance of the weights found from the minimum is
        at most their gradient, which is checked.

    Raises:
        UserError: epsilon or delta is out of range, or an embedding is longer than 1.
    """
    inputs_ND = _with_constant(train_ND)
    if np.linalg.norm(inputs_ND, axis=1).max() > 1 + 1e-6:
        raise UserError("The embeddings must be of unit length; pass them through unit_embeddings.")
    patients_N = np.unique(train["patient_id"].to_numpy(str), return_inverse=True)[1]
    shares_N = 1 / np.bincount(patients_N)[patients_N]
    weights_LD = np.stack(
        [
            _minimise(inputs_ND, train[f"label_{label}"], regularisation * shares_N)
            for label in labels
        ]
    )
    per_label = regularisation * (1 + 1e-6) + 2 * LARGEST_GRADIENT
    noise_multiplier = gaussian_noise_multiplier(epsilon=epsilon, delta=delta)
    scale = noise_multiplier * per_label * np.sqrt(len(labels))
    noise = stream.normal("private probe", 0, weights_LD.size).reshape(weights_LD.shape)
    return PrivateProbe(
        weights_LD=weights_LD + scale * noise,
        labels=tuple(labels),
        epsilon=epsilon,
        delta=delta,
        noise_multiplier=noise_multiplier,
        private=not stream.injected,
    )


def gaussian_noise_multiplier(*, epsilon: float, delta: float) -> float:
    """The least noise, over the sensitivity, with which one Gaussian release is private.

    Raises:
        UserError: epsilon is not positive or delta not in (0, 1).
    """
    if not (epsilon > 0 and 0 < delta < 1):
        raise UserError(f"epsilon={epsilon}, delta={delta}: needs epsilon > 0 and 0 < delta < 1.")

    def excess(log_mu: float) -> float:
        return float(gaussian_delta(np.array(epsilon), np.exp(log_mu))) - delta

    # A little more noise than the root, so that rounding errs on the private side.
    return float(np.exp(-brentq(excess, np.log(1e-6), np.log(1e6), xtol=1e-12)) * (1 + 1e-9))


def _minimise(inputs_ND: np.ndarray, truth: pd.Series, costs_N: np.ndarray) -> np.ndarray:
    """The minimum of the weighted logistic loss plus |w|^2 / 2."""
    truth_N = truth.to_numpy(float, na_value=np.nan)
    known_N = ~np.isnan(truth_N)
    rows_ND, costs_N, signs_N = inputs_ND[known_N], costs_N[known_N], 2 * truth_N[known_N] - 1

    def objective(weights_D: np.ndarray) -> tuple[float, np.ndarray]:
        margins_N = signs_N * (rows_ND @ weights_D)
        loss = costs_N @ np.logaddexp(0, -margins_N) + weights_D @ weights_D / 2
        gradient_D = weights_D - rows_ND.T @ (costs_N * signs_N * expit(-margins_N))
        return float(loss), gradient_D

    found = minimize(
        objective,
        np.zeros(inputs_ND.shape[1]),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 10_000, "ftol": 0, "gtol": LARGEST_GRADIENT / inputs_ND.shape[1]},
    )
    gradient_norm = np.linalg.norm(objective(found.x)[1])
    if not gradient_norm <= LARGEST_GRADIENT:  # the guarantee rests on it, so no assert
        raise RuntimeError(f"the probe did not converge: gradient {gradient_norm}")
    return found.x


def _with_constant(rows_ND: np.ndarray) -> np.ndarray:
    """A constant feature, then everything over sqrt(2): a unit row stays one."""
    constant_N1 = np.ones((len(rows_ND), 1))
    return np.concatenate([rows_ND.astype(np.float64), constant_N1], axis=1) / np.sqrt(2)
