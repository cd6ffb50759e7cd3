"""Probe utility and the utilisation gap, and the private probe's sensitivity."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from dpmed.errors import UserError
from dpmed.evaluation.private_probe import (
    LARGEST_GRADIENT,
    fit_private_probe,
    gaussian_noise_multiplier,
)
from dpmed.evaluation.probe import measure_utilisation, probe_predictions, unit_embeddings
from dpmed.privacy.randomness import SecretStream

LABELS = ("pneumonia", "no_finding")


def _embed(table, seed):
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(len(table), 6))
    for feature, label in enumerate(LABELS):
        rows[:, feature] += 1.5 * table[f"label_{label}"]
    return rows


@pytest.fixture(scope="module")
def data(cohort):
    tables = [cohort(seed=seed, split=split) for seed, split in enumerate(("train", "test"))]
    return tables, [unit_embeddings(_embed(table, 7 + i)) for i, table in enumerate(tables)]


def test_utility_is_the_macro_auroc_of_logistic_regression(data):
    (train, test), (train_ND, test_ND) = data
    probed = probe_predictions(train_ND, train, test_ND, test, labels=LABELS)
    found = measure_utilisation(probed, test, labels=LABELS, num_bootstrap=200)
    expected, heads = [], []
    for label in LABELS:
        fit = LogisticRegression(C=1.0, max_iter=1000).fit(train_ND, train[f"label_{label}"])
        truth = test[f"label_{label}"]
        expected.append(roc_auc_score(truth, fit.decision_function(test_ND)))
        heads.append(roc_auc_score(truth, test[f"prob_{label}"]))
    assert found["probe_utility"]["value"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert found["end_to_end_utility"]["value"] == pytest.approx(np.mean(heads), abs=1e-8)
    gap = found["utilisation_gap"]
    assert gap["value"] == pytest.approx(np.mean(expected) - np.mean(heads), abs=1e-4)
    assert gap["ci_low"] < gap["value"] < gap["ci_high"]
    assert 0 < gap["p_value"] <= 1


def test_the_same_scores_leave_no_gap(data):
    (_, test), _ = data
    gap = measure_utilisation(test, test, labels=LABELS, num_bootstrap=50)["utilisation_gap"]
    assert (gap["ci_low"], gap["value"], gap["ci_high"], gap["p_value"]) == (0, 0, 0, 1)


def test_a_label_without_positives_in_training_is_left_out_of_both(data):
    (train, test), (train_ND, test_ND) = data
    spoilt = train.assign(label_pneumonia=np.float32(0))
    probed = probe_predictions(train_ND, spoilt, test_ND, test, labels=LABELS)
    found = measure_utilisation(probed, test, labels=LABELS, num_bootstrap=50)
    truth = test["label_no_finding"]
    head = roc_auc_score(truth, test["prob_no_finding"])
    assert found["end_to_end_utility"]["value"] == pytest.approx(head, abs=1e-8)
    assert found["utilisation_gap"]["labels_left_out"] == ["pneumonia"]
    with pytest.raises(UserError, match="600 embeddings do not match 10"):
        probe_predictions(train_ND, train.iloc[:10], test_ND, test, labels=LABELS)


@pytest.mark.parametrize("regularisation", [0.1, 3.0])
def test_one_patient_moves_the_private_probe_no_further_than_its_sensitivity(data, regularisation):
    (train, _), (train_ND, _) = data

    def weights(rows_ND, table):
        return fit_private_probe(
            rows_ND,
            table,
            labels=LABELS,
            epsilon=1e6,
            delta=1e-5,
            stream=SecretStream.from_key(b"k" * 32),  # the same noise cancels in the difference
            regularisation=regularisation,
        ).weights_LD

    # An extreme patient of three images: a direction that no other image has, positive in all.
    theirs = (train["patient_id"] == train["patient_id"][0]).to_numpy()
    extreme_ND, table = np.array(train_ND), train.copy()
    extreme_ND[:, 5] = 0
    extreme_ND /= np.linalg.norm(extreme_ND, axis=1, keepdims=True)
    extreme_ND[theirs] = np.eye(6)[5]
    table.loc[theirs, [f"label_{label}" for label in LABELS]] = 1
    without = weights(extreme_ND[~theirs], table[~theirs].reset_index(drop=True))
    moved = np.linalg.norm(weights(extreme_ND, table) - without, axis=1).max()
    assert moved <= regularisation + 2 * LARGEST_GRADIENT
    assert moved > 0.3 * regularisation  # the bound is not idle


def test_noise_has_the_scale_of_the_guarantee(data):
    (train, _), (train_ND, _) = data
    probes = {
        epsilon: fit_private_probe(
            train_ND,
            train,
            labels=LABELS,
            epsilon=epsilon,
            delta=1e-5,
            stream=SecretStream.from_key(b"k" * 32),
            regularisation=3.0,
        )
        for epsilon in (1.0, 1e6)
    }
    assert not probes[1.0].private
    noise = (probes[1.0].weights_LD - probes[1e6].weights_LD).ravel()
    multiplier = probes[1.0].noise_multiplier - probes[1e6].noise_multiplier
    drawn = SecretStream.from_key(b"k" * 32).normal("private probe", 0, noise.size)
    np.testing.assert_allclose(noise, 3.0 * multiplier * np.sqrt(len(LABELS)) * drawn, rtol=1e-3)
    assert probes[1.0].noise_multiplier == gaussian_noise_multiplier(epsilon=1.0, delta=1e-5)


def test_the_private_probe_learns_when_there_is_enough_data(cohort):
    train = cohort(num_patients=3000, images_each=1)
    test = cohort(seed=1, split="test", num_patients=1000, images_each=1)
    probe = fit_private_probe(
        unit_embeddings(_embed(train, 1)),
        train,
        labels=LABELS,
        epsilon=8.0,
        delta=1e-5,
        stream=SecretStream.from_os(),
    )
    assert probe.private
    probed = probe.predictions(unit_embeddings(_embed(test, 2)), test)
    # Over 200 keys: .84 without noise, mean .82 and least .77 with it; chance is .5.
    assert roc_auc_score(test["label_pneumonia"], probed["prob_pneumonia"]) > 0.7


def test_the_gaussian_noise_multiplier_is_the_known_one():
    # Balle and Wang 2018: epsilon 1, delta 1e-5 needs 3.73 where the classical formula says 4.84.
    assert gaussian_noise_multiplier(epsilon=1, delta=1e-5) == pytest.approx(3.7306, abs=1e-3)
    with pytest.raises(UserError, match="epsilon=0"):
        gaussian_noise_multiplier(epsilon=0, delta=1e-5)
