"""The table of starts: means over runs, and gains paired by split and seed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.initialisation import NUM_RESAMPLES, Run, plot, summarise

SPLIT_EFFECT = {"a": -0.05, "b": 0.0, "c": 0.05}
GAIN = {"scratch": 0.0, "domain": 0.04}


def _runs() -> list[Run]:
    generator = np.random.default_rng(0)
    patients_R = np.concatenate([[0.0], generator.normal(0, 0.02, NUM_RESAMPLES)])
    return [
        Run(
            start=start,
            trainable="head",
            epsilon="8",
            split=split,
            seed=seed,
            row={},
            macro_R=0.6 + gain + effect + patients_R + 0.001 * seed,
        )
        for start, gain in GAIN.items()
        for split, effect in SPLIT_EFFECT.items()
        for seed in (0, 1)
    ]


def test_what_runs_share_widens_the_mean_and_cancels_in_the_gain() -> None:
    summary = summarise(_runs(), against="scratch").set_index("start")
    domain, scratch = summary.loc["domain"], summary.loc["scratch"]
    assert domain["auroc"] == pytest.approx(0.6405)
    assert domain["auroc_high"] - domain["auroc_low"] > 0.08, "patients and splits both vary"
    assert domain["gain"] == pytest.approx(0.04)
    assert domain["gain_high"] - domain["gain_low"] < 1e-3, "the same patients, split and seed"
    assert np.isnan(scratch["gain"])
    assert (domain["num_runs"], domain["num_pairs"]) == (6, 6)
    words = plot(summary.reset_index()).drawing.standalone()
    assert "Epsilon 8, trained: head" in words


def test_gains_are_counted_within_the_same_epsilon_only() -> None:
    runs = [run for run in _runs() if run.start == "domain"]
    assert "gain" not in summarise(runs, against="scratch")
