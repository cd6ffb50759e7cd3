"""Patient resampling: clusters stay whole, models are paired, degenerate draws are replaced."""

from __future__ import annotations

import numpy as np
import pytest

from dpmed.evaluation.bootstrap import MAX_DRAWS, PatientBootstrap
from dpmed.evaluation.ranking import WeightedAuroc

PATIENTS = ["b", "a", "b", "c", "a", "d"]


def _bootstrap(patients=PATIENTS, **changes):
    settings = {"num_replicates": 100, "seed": 5, "threads": 1} | changes
    return PatientBootstrap(patient_ids=patients, **settings)


def test_a_replicate_draws_as_many_patients_as_there_are():
    weights_PB = _bootstrap().weights(range(50))
    assert weights_PB.shape == (4, 50)
    np.testing.assert_array_equal(weights_PB.sum(axis=0), 4)
    assert weights_PB.max() > 1


def test_replicates_depend_on_seed_and_patients_alone():
    weights_PB = _bootstrap().weights(range(40))
    np.testing.assert_array_equal(_bootstrap().weights(range(30, 40)), weights_PB[:, 30:])
    shuffled = _bootstrap(["d", "c", "b", "a"])
    np.testing.assert_array_equal(shuffled.weights(range(40)), weights_PB)
    assert (_bootstrap(seed=6).weights(range(40)) != weights_PB).any()


def test_a_patient_brings_all_images_or_none():
    bootstrap = _bootstrap()
    for patient in "ab":
        bootstrap.add_total(patient, np.array([name == patient for name in PATIENTS]))
        bootstrap.add_derived(("half", patient), (patient,), lambda total: total / 2)
    draws = bootstrap.run()
    for patient in "ab":
        values_R = draws["half", patient].values_R
        np.testing.assert_array_equal(values_R, np.round(values_R))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_blocks_do_not_change_a_result(threads, monkeypatch):
    def run():
        bootstrap = _bootstrap(threads=threads)
        bootstrap.add_statistic(
            "auroc",
            WeightedAuroc(
                scores_N=np.arange(6.0),
                positive_N=np.array([0, 1, 0, 1, 1, 0], bool),
                patients_N=bootstrap.patients_N,
                num_patients=bootstrap.num_patients,
            ),
        )
        return bootstrap.run()["auroc"].values_R

    expected_R = run()
    monkeypatch.setattr("dpmed.evaluation.bootstrap.BLOCK", 7)
    np.testing.assert_array_equal(run(), expected_R)


def test_degenerate_resamples_are_redrawn_and_counted():
    bootstrap = _bootstrap()
    bootstrap.add_total("of d", np.array([name == "d" for name in PATIENTS]))
    bootstrap.add_total("all", np.ones(6))
    bootstrap.add_derived("ratio", ("all", "of d"), np.divide)
    bootstrap.add_derived("plain", ("all",), lambda total: total)
    draws = bootstrap.run()
    assert len(draws["ratio"].values_R) == 100
    assert np.isfinite(draws["ratio"].values_R).all()
    # P(d not drawn) = (3/4)^4 = .32, so 100 values take about 146 draws, 47 of them in vain;
    # standard deviation 8.3: outside [15, 90] with probability 1e-4 over seeds; it is fixed here.
    assert 15 < draws["ratio"].num_redrawn < 90
    assert draws["plain"].num_redrawn == 0


def test_a_hopeless_series_ends_and_says_how_often_it_was_tried():
    bootstrap = _bootstrap()
    bootstrap.add_total("none", np.zeros(6))
    bootstrap.add_derived("ratio", ("none", "none"), np.divide)
    draws = bootstrap.run()["ratio"]
    assert not draws.is_complete
    assert draws.num_redrawn == MAX_DRAWS * 100
    assert np.isnan(draws.point)


def test_the_reflected_interval_mirrors_the_percentiles_about_the_point():
    bootstrap = _bootstrap()
    bootstrap.add_total("sum", np.array([1.0, 2, 3, 4, 5, 6]))
    bootstrap.add_derived("sum/2", ("sum",), lambda total: total / 2)
    draws = bootstrap.run()["sum/2"]
    low, high = draws.interval()
    np.testing.assert_allclose(
        draws.interval(reflected=True), [2 * draws.point - high, 2 * draws.point - low]
    )
