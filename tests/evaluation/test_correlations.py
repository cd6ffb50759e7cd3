"""Correlations against scipy, and within groups by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr

from dpmed.errors import UserError
from dpmed.evaluation.correlations import correlate, correlate_drops, correlate_runs

GENERATOR = np.random.default_rng(5)
X = GENERATOR.normal(size=24)
Y = X + GENERATOR.normal(size=24)


def test_pearson_and_its_interval_are_those_of_scipy():
    found = correlate(X, Y, method="pearson")
    expected = pearsonr(X, Y)
    low, high = expected.confidence_interval(0.95)
    assert found["value"] == pytest.approx(expected.statistic)
    assert (found["ci_low"], found["ci_high"]) == (pytest.approx(low), pytest.approx(high))
    assert found["n"] == 24


def test_spearman_and_missing_pairs():
    found = correlate([*X, np.nan, 1.0], [*Y, 1.0, np.nan], method="spearman")
    assert found["value"] == pytest.approx(spearmanr(X, Y).statistic)
    assert found["n"] == 24
    assert found["ci_low"] < found["value"] < found["ci_high"]


def test_a_difference_between_groups_is_no_correlation_within():
    group = np.repeat(["a", "b"], 12)
    shift = 10.0 * (group == "b")
    pooled = correlate(X + shift, Y - shift, method="pearson")
    within = correlate(X + shift, Y - shift, method="pearson", groups=group)
    assert pooled["value"] < -0.8
    by_hand = [values - pd.Series(values).groupby(group).transform("mean") for values in (X, Y)]
    assert within["value"] == pytest.approx(pearsonr(*by_hand).statistic)
    assert within["value"] > 0.3


def test_what_cannot_be_estimated_says_so():
    assert "too few" in correlate([1, 2, 3], [1, 2, 4], method="pearson")["reason"]
    assert "too few" in correlate([], [], method="spearman")["reason"]
    assert "does not vary" in correlate(X, np.full(24, 0.1), method="pearson")["reason"]
    with pytest.raises(UserError, match="method=kendall"):
        correlate(X, Y, method="kendall")


def test_runs_are_correlated_pooled_and_within():
    runs = pd.DataFrame({"displacement": X, "gap": Y, "dataset": ["a", "b"] * 12})
    rows = correlate_runs(runs, quantities=["displacement", "gap"], within=["dataset"])
    assert {(row["method"], row["within"]) for row in rows} == {
        (method, within) for method in ("pearson", "spearman") for within in ("pooled", "dataset")
    }
    with pytest.raises(UserError, match=r"no column 'gapp'.*Did you mean 'gap'"):
        correlate_runs(runs, quantities=["gapp"], within=[])


def test_drops_are_paired_by_label():
    labels = [f"label{index}" for index in range(6)]
    entry = {"ci_low": None, "ci_high": None, "num_negative": 10}
    reference = {
        label: {**entry, "value": 0.8 + 0.02 * index, "num_positive": 100 - index}
        for index, label in enumerate(labels)
    }
    private = {
        label: {**reference[label], "value": reference[label]["value"] - 0.01 * (index + 1)}
        for index, label in enumerate(labels)
    }
    reference["macro"] = {**entry, "value": 0.0, "num_positive": 0}
    private["label0"] = {**private["label0"], "value": None}
    found = correlate_drops(private, reference)
    assert found["drop_with_reference_auroc"]["n"] == 5
    assert found["drop_with_reference_auroc"]["value"] == pytest.approx(1)
    assert found["drop_with_num_positive"]["value"] == pytest.approx(-1)
