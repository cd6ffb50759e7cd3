"""Paired comparison: its differences are those of the two models, and it refuses unequal tables."""

from __future__ import annotations

import numpy as np
import pytest

from dpmed.errors import UserError
from dpmed.evaluation.comparison import compare
from dpmed.evaluation.metrics import evaluate
from dpmed.evaluation.thresholds import choose_thresholds, threshold_values

LABELS = ("pneumonia", "no_finding")


@pytest.fixture(scope="module")
def runs(cohort):
    """A model and the same model under noise, with thresholds from their validation splits."""
    generator = np.random.default_rng(3)
    tables, thresholds = {}, {}
    for name, noise in (("reference", 0.0), ("candidate", 2.0)):
        splits = {}
        for seed, split in enumerate(("validation", "test")):
            table = cohort(seed=seed, split=split)
            for label in LABELS:
                logits = np.log(table[f"prob_{label}"] / (1 - table[f"prob_{label}"]))
                noisy = logits + noise * generator.normal(size=len(table))
                table[f"prob_{label}"] = (1 / (1 + np.exp(-noisy))).astype(np.float32)
            splits[split] = table
        tables[name] = splits
        thresholds[name] = threshold_values(choose_thresholds(splits["validation"], labels=LABELS))
    return tables, thresholds


def _compare(runs, candidate="candidate", **changes):
    tables, thresholds = runs
    return compare(
        tables[candidate]["test"],
        tables["reference"]["test"],
        labels=LABELS,
        candidate_thresholds=thresholds[candidate],
        reference_thresholds=thresholds["reference"],
        num_bootstrap=300,
        intersections=False,
        **changes,
    )


def test_values_are_the_differences_of_the_two_metrics_files(runs):
    tables, _ = runs
    found = _compare(runs)
    alone = {
        name: evaluate(splits, labels=LABELS, num_bootstrap=50, intersections=False)
        for name, splits in tables.items()
    }
    for path in (
        ("auroc", "macro"),
        ("f1", "pneumonia"),
        ("subgroups", "sex", "F", "tpr", "pneumonia"),
        ("subgroups", "age", "[30, 60)", "auroc", "no_finding"),
    ):
        values = []
        for entry in (*(run["splits"]["test"] for run in alone.values()), found):
            for step in path:
                entry = entry[step]
            values.append(entry["value"])
        reference, candidate, difference = values
        assert difference == pytest.approx(candidate - reference, abs=1e-8)
    gaps = [run["gaps"]["test"]["sex"]["auroc"]["macro"]["value"] for run in alone.values()]
    assert found["gaps"]["sex"]["auroc"]["macro"]["value"] == pytest.approx(gaps[1] - gaps[0])


def test_noise_is_found_and_pairing_shortens_the_interval(runs):
    found = _compare(runs)["auroc"]["macro"]
    assert found["ci_high"] < 0
    assert found["p_value"] == pytest.approx(2 / 301)
    same = _compare(runs, candidate="reference", margin=0.02)["auroc"]["macro"]
    assert (same["ci_low"], same["value"], same["ci_high"]) == (0, 0, 0)
    assert same["p_value"] == 1
    assert same["equivalence"]["equivalent"]


def test_the_family_is_adjusted_for(runs):
    auroc = _compare(runs, dependence="positive")["auroc"]
    assert auroc["pneumonia"]["family_size"] == 2
    assert auroc["pneumonia"]["p_adjusted"] >= auroc["pneumonia"]["p_value"]
    assert "p_adjusted" not in auroc["macro"]


def test_order_does_not_matter_but_images_and_truth_must_match(runs):
    tables, thresholds = runs
    table = tables["candidate"]["test"]
    arguments = {
        "labels": LABELS,
        "candidate_thresholds": thresholds["candidate"],
        "reference_thresholds": thresholds["candidate"],
        "num_bootstrap": 20,
    }
    shuffled = table.sample(frac=1, random_state=0)
    assert compare(table, shuffled, **arguments)["auroc"]["macro"]["value"] == 0
    with pytest.raises(UserError, match="600 have no prediction"):
        compare(table, table.assign(image=table["image"] + "x"), **arguments)
    with pytest.raises(UserError, match="disagree on label_pneumonia for 600 images"):
        compare(table, table.assign(label_pneumonia=1 - table["label_pneumonia"]), **arguments)
