"""DeLong against its definition, its own bootstrap, and its refusal of clustered tables."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dpmed.errors import UserError
from dpmed.evaluation.delong import delong, delong_interval, delong_test

GENERATOR = np.random.default_rng(11)
POSITIVE_N = GENERATOR.random(120) < 0.4
SCORES_MN = np.round(GENERATOR.normal(size=(2, 120)) + POSITIVE_N, 1)  # rounded: has ties
PATIENTS = np.arange(120)


def test_equals_the_placement_values_of_the_definition():
    aurocs, covariance = delong(SCORES_MN, POSITIVE_N, patient_ids=PATIENTS)
    for scores, auroc in zip(SCORES_MN, aurocs, strict=True):
        assert auroc == pytest.approx(roc_auc_score(POSITIVE_N, scores), abs=1e-12)
    pairs = SCORES_MN[:, POSITIVE_N][:, :, None] - SCORES_MN[:, ~POSITIVE_N][:, None, :]
    won = (pairs > 0) + 0.5 * (pairs == 0)
    expected = np.cov(won.mean(axis=2)) / POSITIVE_N.sum()
    expected += np.cov(won.mean(axis=1)) / (~POSITIVE_N).sum()
    np.testing.assert_allclose(covariance, expected, rtol=1e-10)


def test_interval_stays_inside_and_equal_models_do_not_differ():
    aurocs, covariance = delong(SCORES_MN[[0, 0]], POSITIVE_N, patient_ids=PATIENTS)
    low, high = delong_interval(aurocs[0], covariance[0, 0], confidence=0.95)
    assert 0 < low < aurocs[0] < high < 1
    assert delong_test(aurocs, covariance) == 1
    assert delong_interval(1.0, 0.0, confidence=0.95) == (1.0, 1.0)


def test_several_images_of_a_patient_are_refused():
    with pytest.raises(UserError, match="60 patients have 120 images"):
        delong(SCORES_MN, POSITIVE_N, patient_ids=PATIENTS // 2)
