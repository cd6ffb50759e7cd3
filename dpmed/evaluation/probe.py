"""Linear probe: what a simple classifier could still read from frozen embeddings.

Probe utility is the macro AUROC of one-vs-rest logistic regression on unit embeddings, fitted on
training images and scored on test images; the utilisation gap is what the trained head leaves
unused of it. The probe is fitted on private labels without noise: an analysis quantity, not
covered by epsilon and never released. `private_probe.py` has the one that is.
Shapes: N images, D features.

Source: DP-RGMI, arXiv 2603.01098.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from dpmed.errors import UserError
from dpmed.evaluation.bootstrap import PatientBootstrap
from dpmed.evaluation.discrimination import add_ranking, plan_macro
from dpmed.evaluation.embeddings import read_blocks
from dpmed.evaluation.estimability import Minimum, cases
from dpmed.evaluation.estimates import Planned, not_estimable, resolve
from dpmed.evaluation.predictions import label_column
from dpmed.evaluation.testing import two_sided_p

ROWS_AT_A_TIME = 65536
REGULARISATION = 1.0  # C of scikit-learn, as published


def unit_embeddings(source: Path | np.ndarray) -> np.ndarray:
    """Rows divided by their length, float32 [N, D], from a file or an array.

    Raises:
        UserError: a row is all zeros.
    """
    blocks = [source] if isinstance(source, np.ndarray) else read_blocks(source, ROWS_AT_A_TIME)
    rows_ND = np.concatenate([block.astype(np.float32) for block in blocks])
    norms_N = np.linalg.norm(rows_ND, axis=1)
    if not norms_N.all():
        raise UserError(f"{int((norms_N == 0).sum())} embeddings are all zeros.")
    rows_ND /= norms_N[:, None]
    return rows_ND


def probe_predictions(
    train_ND: np.ndarray,
    train: pd.DataFrame,
    test_ND: np.ndarray,
    test: pd.DataFrame,
    *,
    labels: Sequence[str],
) -> pd.DataFrame:
    """The test predictions with the probe's probabilities in place of the model's.

    Args:
        train_ND: unit embeddings of the training images.
        train: their predictions table, of which only the truth is read.
        test_ND: unit embeddings of the test images by the same encoder.
        test: their predictions table.
        labels: what to probe for; one without both classes in training gets NaN.
    """
    for rows_ND, table in ((train_ND, train), (test_ND, test)):
        if len(rows_ND) != len(table):
            raise UserError(f"{len(rows_ND)} embeddings do not match {len(table)} predictions.")
    probed = test.copy()
    for label in labels:
        truth_N = train[f"label_{label}"].to_numpy(float, na_value=np.nan)
        probed[f"prob_{label}"] = _probe(train_ND, truth_N, test_ND)
    return probed


def measure_utilisation(
    probed: pd.DataFrame,
    predictions: pd.DataFrame,
    *,
    labels: Sequence[str],
    num_bootstrap: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    threads: int | None = None,
) -> dict[str, Any]:
    """Probe utility, end-to-end utility and their difference, on the same resamples of patients.

    Args:
        probed: from `probe_predictions`.
        predictions: of the trained head, same rows in the same order.
        labels: those that both can rank make up the three macro AUROCs.
        num_bootstrap: resamples of patients.
        seed: of the resampling.
        confidence: of the intervals.
        threads: of the bootstrap; never changes a result.

    Returns:
        `probe_utility`, `end_to_end_utility` and `utilisation_gap` (with its two-sided p), each in
        the five fields of `metrics.json`.
    """
    bootstrap = PatientBootstrap(
        patient_ids=predictions["patient_id"].to_numpy(),
        num_replicates=num_bootstrap,
        seed=seed,
        threads=threads,
    )
    planned: dict[str, dict[str, Planned]] = {"probe": {}, "head": {}}
    for label in labels:
        rows = {
            "probe": cases(label_column(probed, label)),
            "head": cases(label_column(predictions, label)),
        }
        reasons = [each.reason(Minimum(), needs_ranking=True) for each in rows.values()]
        reason = next((each for each in reasons if each is not None), None)
        for model, each in rows.items():
            planned[model][label] = Planned(
                key=add_ranking(bootstrap, "auroc", model, each) if reason is None else None,
                num_positive=each.num_positive,
                num_negative=each.num_negative,
                reason=reason,
            )
    utilities = {name: plan_macro(bootstrap, name, each) for name, each in planned.items()}
    entries = {
        "probe_utility": utilities["probe"],
        "end_to_end_utility": utilities["head"],
        "utilisation_gap": _plan_gap(bootstrap, utilities["probe"], utilities["head"]),
    }
    return resolve(entries, bootstrap.run(), confidence=confidence)


def _probe(train_ND: np.ndarray, truth_N: np.ndarray, test_ND: np.ndarray) -> np.ndarray:
    known_N = ~np.isnan(truth_N)
    if len(np.unique(truth_N[known_N])) < 2:
        return np.full(len(test_ND), np.nan, np.float32)
    probe = LogisticRegression(C=REGULARISATION, max_iter=1000)
    probe.fit(train_ND[known_N], truth_N[known_N].astype(int))
    return probe.predict_proba(test_ND)[:, 1].astype(np.float32)


def _plan_gap(bootstrap: PatientBootstrap, probe: Planned, head: Planned) -> Planned:
    if probe.reason is not None:
        reason = not_estimable("no label has both a probe and a head to compare")
        return Planned(key=None, num_positive=0, num_negative=0, reason=reason)
    key = ("utilisation_gap", probe.key, head.key)
    bootstrap.add_derived(key, (probe.key, head.key), np.subtract)
    return Planned(
        key=key,
        num_positive=probe.num_positive,
        num_negative=probe.num_negative,
        extra=probe.extra,
        summarise=lambda differences_R: {"p_value": two_sided_p(differences_R)},
    )
