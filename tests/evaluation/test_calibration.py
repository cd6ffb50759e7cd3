"""Calibration and its curves against scikit-learn and full refits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_curve

from dpmed.evaluation.bootstrap import PatientBootstrap
from dpmed.evaluation.calibration import plan_calibration
from dpmed.evaluation.curves import ROC_GRID, plan_reliability, plan_roc
from dpmed.evaluation.estimability import Minimum, cases
from dpmed.evaluation.predictions import label_column


def _evaluate(table, num_replicates=200):
    bootstrap = PatientBootstrap(
        patient_ids=table["patient_id"].to_numpy(), num_replicates=num_replicates, seed=0
    )
    rows = cases(label_column(table, "pneumonia"))
    planned = plan_calibration(bootstrap, "split", rows, minimum=Minimum())
    planned |= {"reliability": plan_reliability(bootstrap, rows), "roc": plan_roc(bootstrap, rows)}
    return bootstrap, rows, planned, bootstrap.run()


def _refit(scores, positive, times=None):
    design = logit(scores)[:, None]
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    fit.fit(design, positive, sample_weight=times)
    return float(fit.coef_[0, 0]), float(fit.intercept_[0])


def test_points_equal_the_references(cohort):
    _, rows, planned, draws = _evaluate(cohort())
    found = {name: float(draws[planned[name].key].point) for name in ("brier", "log_loss", "slope")}
    assert found["brier"] == pytest.approx(brier_score_loss(rows.positive, rows.scores))
    assert found["log_loss"] == pytest.approx(log_loss(rows.positive, rows.scores))
    slope, intercept = _refit(rows.scores, rows.positive)
    assert found["slope"] == pytest.approx(slope, abs=1e-5)
    assert draws[planned["intercept"].key].point == pytest.approx(intercept, abs=1e-5)
    large = float(draws[planned["in_the_large"].key].point)
    assert expit(logit(rows.scores) + large).mean() == pytest.approx(rows.positive.mean())


def test_one_newton_step_is_close_to_refitting_every_resample(cohort):
    bootstrap, rows, planned, draws = _evaluate(cohort())
    slopes = draws[planned["slope"].key].values_R
    weights_PB = bootstrap.weights(range(60))
    refitted = np.array(
        [
            _refit(rows.scores, rows.positive, weights_PB[bootstrap.patients_N, replicate])[0]
            for replicate in range(60)
        ]
    )
    # The step's error is second order: on average under a tenth of the resamples' own spread.
    assert np.abs(slopes[:60] - refitted).mean() < 0.1 * refitted.std()
    assert np.corrcoef(slopes[:60], refitted)[0, 1] > 0.99
    assert slopes[:60].std() == pytest.approx(refitted.std(), rel=0.1)


def test_calibrated_scores_read_as_calibrated(cohort):
    table = cohort(num_patients=2000, images_each=1)
    truth = np.random.default_rng(1).random(len(table)) < table["prob_pneumonia"]
    table["label_pneumonia"] = truth.astype(np.float32)
    _, _, planned, draws = _evaluate(table)
    for name, expected in (("slope", 1), ("intercept", 0), ("in_the_large", 0)):
        low, high = draws[planned[name].key].interval(0.999)
        assert low < expected < high
    ece = draws[planned["ece"].key]
    low, high = ece.interval(reflected=True)
    assert low < ece.point
    assert np.median(ece.values_R) > ece.point  # why its interval is reflected


def test_ece_by_hand():
    scores = np.repeat(np.arange(1, 16) / 16, 10)
    truth = np.tile(np.arange(10) < 5, 15)
    table = pd.DataFrame(
        {
            "patient_id": np.arange(150).astype(str),
            "label_pneumonia": truth.astype(float),
            "prob_pneumonia": scores,
        }
    )
    _, _, planned, draws = _evaluate(table)
    assert draws[planned["ece"].key].point == pytest.approx(np.abs(scores - 0.5).mean(), rel=1e-5)
    np.testing.assert_allclose(draws[planned["reliability"].key].point, 0.5)
    np.testing.assert_allclose(planned["reliability"].fields["predicted"], np.arange(1, 16) / 16)


def test_separated_classes_have_no_slope_but_everything_else(cohort):
    table = cohort()
    table["prob_pneumonia"] = np.where(table["label_pneumonia"] == 1, 0.8, 0.3)
    _, _, planned, draws = _evaluate(table)
    assert "no finite solution" in planned["slope"].reason
    assert planned["brier"].reason is None
    assert draws[planned["brier"].key].point == pytest.approx(
        np.mean((table["prob_pneumonia"] - table["label_pneumonia"]) ** 2)
    )


def test_the_thinned_roc_lies_on_the_full_one(cohort):
    _, rows, planned, draws = _evaluate(cohort(num_patients=1000))
    fpr, tpr, _ = roc_curve(rows.positive, rows.scores, drop_intermediate=False)
    curve = draws[planned["roc"].key]
    full = np.interp(ROC_GRID, fpr, tpr)
    assert np.abs(curve.point - full).max() < 0.01
    low, high = curve.interval()
    assert (low <= curve.point + 1e-9).all()
    assert (curve.point <= high + 1e-9).all()
    assert (np.diff(curve.point) >= 0).all()
    assert (high - low)[1:-5].max() > 0.02
