"""Weighted ranking against scikit-learn on tables in which rows really are repeated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from dpmed.evaluation import ranking
from dpmed.evaluation.ranking import WeightedAuroc, WeightedAveragePrecision

REFERENCES = [
    (WeightedAuroc, roc_auc_score),
    (WeightedAveragePrecision, average_precision_score),
]


def _table(seed: int, *, num_rows: int, num_patients: int, num_levels: int, prevalence: float):
    generator = np.random.default_rng(seed)
    return {
        "scores_N": generator.integers(0, num_levels, num_rows) / 7,
        "positive_N": generator.random(num_rows) < prevalence,
        "patients_N": generator.integers(0, num_patients, num_rows),
        "num_patients": num_patients,
    }


def _repeated(table, weights_P, reference):
    times_N = weights_P[table["patients_N"]].astype(int)
    truth = np.repeat(table["positive_N"], times_N)
    if truth.all() or not truth.any():
        return np.nan
    return reference(truth, np.repeat(table["scores_N"], times_N))


@pytest.mark.parametrize(("statistic", "reference"), REFERENCES)
@given(
    seed=st.integers(0, 10_000),
    num_rows=st.integers(2, 60),
    num_levels=st.sampled_from([1, 2, 5, 10**6]),
    prevalence=st.sampled_from([0.05, 0.5, 0.9]),
)
@settings(max_examples=60, deadline=None)
def test_equals_the_reference_on_repeated_rows(
    statistic, reference, seed, num_rows, num_levels, prevalence
):
    table = _table(
        seed, num_rows=num_rows, num_patients=9, num_levels=num_levels, prevalence=prevalence
    )
    weights_PB = np.random.default_rng(seed + 1).integers(0, 4, (9, 8)).astype(np.float32)
    found_B = statistic(**table)(weights_PB)
    for weights_P, found in zip(weights_PB.T, found_B, strict=True):
        expected = _repeated(table, weights_P, reference)
        if np.isnan(expected) and reference is average_precision_score:
            continue  # without negatives average precision is 1, which the reference here skips
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(("statistic", "reference"), REFERENCES)
def test_chunks_join_without_a_seam(statistic, reference, monkeypatch):
    monkeypatch.setattr(ranking, "CHUNK_GROUPS", 7)
    table = _table(3, num_rows=400, num_patients=50, num_levels=60, prevalence=0.3)
    weights_PB = np.random.default_rng(4).integers(0, 4, (50, 3)).astype(np.float32)
    found_B = statistic(**table)(weights_PB)
    expected_B = [_repeated(table, weights_P, reference) for weights_P in weights_PB.T]
    np.testing.assert_allclose(found_B, expected_B, atol=1e-12)
