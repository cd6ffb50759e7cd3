"""Groups, their metrics and gaps: against fairlearn, by hand, and nothing dropped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    equalized_odds_difference,
    false_positive_rate,
    true_positive_rate,
)
from sklearn.metrics import accuracy_score, roc_auc_score

from dpmed.errors import UserError
from dpmed.evaluation.frames import group_values
from dpmed.evaluation.groups import AGE_BINS, assign_groups
from dpmed.evaluation.metrics import evaluate

LABELS = ("pneumonia", "no_finding")


@pytest.fixture(scope="module")
def table(cohort):
    table = cohort()
    table.loc[:2, "sex"] = None
    table.loc[table.index[-6:], "site"] = "east"
    return table


@pytest.fixture(scope="module")
def metrics(cohort, table):
    splits = {"validation": cohort(seed=1, split="validation"), "test": table}
    return evaluate(splits, labels=LABELS, subgroups=("sex", "age", "site"), num_bootstrap=200)


def _called(metrics, table, label):
    return (table[f"prob_{label}"] >= metrics["thresholds"][label]["value"]).astype(int)


def test_points_are_those_of_fairlearn(metrics, table):
    known = table[table["sex"].notna()]
    for label in LABELS:
        for name, metric, predicted in (
            ("auroc", roc_auc_score, known[f"prob_{label}"]),
            ("tpr", true_positive_rate, _called(metrics, known, label)),
            ("fpr", false_positive_rate, _called(metrics, known, label)),
            ("accuracy", accuracy_score, _called(metrics, known, label)),
        ):
            frame = MetricFrame(
                metrics=metric,
                y_true=known[f"label_{label}"].astype(int),
                y_pred=predicted,
                sensitive_features=known["sex"],
            )
            for group in ("F", "M"):
                found = metrics["splits"]["test"]["subgroups"]["sex"][group][name][label]
                assert found["value"] == pytest.approx(frame.by_group[group], abs=1e-8)


def test_gaps_are_those_of_fairlearn(metrics, table):
    known = table["sex"].notna()
    for label in LABELS:
        arguments = {
            "y_true": table[f"label_{label}"][known].astype(int),
            "y_pred": _called(metrics, table, label)[known],
            "sensitive_features": table["sex"][known],
        }
        gaps = metrics["gaps"]["test"]["sex"]
        assert gaps["demographic_parity"][label]["value"] == pytest.approx(
            demographic_parity_difference(**arguments)
        )
        assert gaps["equalised_odds"][label]["value"] == pytest.approx(
            equalized_odds_difference(**arguments)
        )


def test_under_and_overdiagnosis_are_the_errors_of_no_finding(metrics):
    sexes = metrics["splits"]["test"]["subgroups"]["sex"]
    for group in sexes.values():
        assert set(group["underdiagnosis"]) == {"no_finding"}
    female = sexes["F"]
    assert female["underdiagnosis"]["no_finding"]["value"] == female["fpr"]["no_finding"]["value"]
    assert female["overdiagnosis"]["no_finding"]["value"] == pytest.approx(
        1 - female["tpr"]["no_finding"]["value"]
    )


def test_spd_is_accuracy_minus_that_of_the_others(metrics, table):
    right = _called(metrics, table, "pneumonia") == table["label_pneumonia"]
    sexes = metrics["splits"]["test"]["subgroups"]["sex"]
    difference = right[table["sex"] == "F"].mean() - right[table["sex"] == "M"].mean()
    assert sexes["F"]["spd"]["pneumonia"]["value"] == pytest.approx(difference)
    assert sexes["M"]["spd"]["pneumonia"]["value"] == pytest.approx(-difference)
    sites = metrics["splits"]["test"]["subgroups"]["site"]
    others = right[table["site"] != "north"].mean()  # weighting by size is pooling
    north = right[table["site"] == "north"].mean()
    assert sites["north"]["spd"]["pneumonia"]["value"] == pytest.approx(north - others)


def test_small_and_missing_groups_are_shown_with_counts_and_never_compared(metrics, table):
    test = metrics["splits"]["test"]
    assert set(test["subgroups"]["sex"]) == {"F", "M", "missing"}
    missing = test["subgroups"]["sex"]["missing"]["auroc"]["pneumonia"]
    assert missing["value"] is None
    assert missing["reason"].startswith("not estimable: ")
    assert missing["num_positive"] + missing["num_negative"] == 3
    east = test["subgroups"]["site"]["east"]["tpr"]["pneumonia"]
    assert east["num_positive"] == int(table["label_pneumonia"][table["site"] == "east"].sum())
    assert "fewer than 10" in east["reason"]
    gap = metrics["gaps"]["test"]["site"]["tpr"]["pneumonia"]
    assert gap["groups_left_out"] == ["east"]
    for attribute in test["subgroups"].values():
        for label in LABELS:
            counted = [group["auroc"][label] for group in attribute.values()]
            assert sum(e["num_positive"] + e["num_negative"] for e in counted) == len(table)


def test_a_gap_names_its_groups_and_may_be_zero(metrics):
    gap = metrics["gaps"]["test"]["sex"]["auroc"]["pneumonia"]
    sexes = metrics["splits"]["test"]["subgroups"]["sex"]
    low, high = gap["lowest_group"], gap["highest_group"]
    values = {group: sexes[group]["auroc"]["pneumonia"]["value"] for group in (low, high)}
    assert gap["value"] == pytest.approx(values[high] - values[low], abs=1e-8)
    assert gap["worst_group"] == low
    assert gap["ci_low"] < 0 < gap["ci_high"]  # this cohort treats the sexes alike
    fpr = metrics["gaps"]["test"]["sex"]["fpr"]["pneumonia"]
    assert fpr["worst_group"] == fpr["highest_group"]


def test_intersections_are_pairs(metrics):
    subgroups = metrics["splits"]["test"]["subgroups"]
    assert set(subgroups) == {"sex", "age", "site", "sex & age", "sex & site", "age & site"}
    assert "F & [30, 60)" in subgroups["sex & age"]
    assert "missing" in subgroups["sex & age"]


def test_ages_fall_into_half_open_bins():
    ages = pd.DataFrame({"age": [0, 29.9, 30, 59, 60, 70, 79, 80, 99, 100, -1, np.nan]})
    for preset, expected in (
        ("private_fair_accurate", ["[0, 30)"] * 2 + ["[30, 60)"] * 2 + ["[60, 70)", "[70, 80)"]),
        ("cross_site", ["[0, 40)"] * 3 + ["[40, 70)"] * 2 + ["[70, 100)"]),
    ):
        groups = assign_groups(ages, attributes=["age"], age_bins=preset, intersections=True)
        assert groups["age"][:6].tolist() == expected
        assert groups["age"][-3:].tolist() == ["outside the bins"] * 2 + ["missing"]
    assert set(AGE_BINS) == {"private_fair_accurate", "cross_site"}


def test_a_wrong_attribute_or_preset_is_named(table):
    with pytest.raises(UserError, match=r"subgroup=sexx.*Did you mean 'sex'"):
        assign_groups(table, attributes=["sexx"], age_bins="cross_site", intersections=False)
    with pytest.raises(UserError, match=r"age_bins=crossite.*Did you mean 'cross_site'"):
        assign_groups(table, attributes=["age"], age_bins="crossite", intersections=False)
    with pytest.raises(UserError, match="increasing edges"):
        assign_groups(table, attributes=["age"], age_bins=[50, 40], intersections=False)


def test_prevalence_matching_takes_prevalence_out_of_a_gap(cohort):
    table = cohort(num_patients=4000, images_each=1)
    # The same model for both sexes, but women's positives are mostly absent from the test set.
    drop = (table["sex"] == "F") & (table["label_pneumonia"] == 1)
    table = table[~drop | (np.arange(len(table)) % 5 == 0)].reset_index(drop=True)
    metrics = evaluate(
        {"validation": cohort(seed=1, split="validation"), "test": table},
        labels=("pneumonia",),
        subgroups=("sex",),
        num_bootstrap=100,
        prevalence_matched=True,
    )
    gaps = metrics["gaps"]["test"]["sex"]
    assert gaps["demographic_parity"]["pneumonia"]["ci_low"] > 0.05
    matched = gaps["demographic_parity_matched"]["pneumonia"]
    assert matched["value"] < 0.05
    female = metrics["splits"]["test"]["subgroups"]["sex"]["F"]
    prevalence = table["label_pneumonia"].mean()
    rates = [female[name]["pneumonia"]["value"] for name in ("tpr", "fpr")]
    assert female["selection_rate_matched"]["pneumonia"]["value"] == pytest.approx(
        prevalence * rates[0] + (1 - prevalence) * rates[1], abs=1e-7
    )


def test_packing_changes_no_value(monkeypatch):
    generator = np.random.default_rng(0)
    truth_N, score_N = generator.integers(0, 2, 300), generator.random(300)
    group_N = generator.choice(["a", "b"], 300)
    monkeypatch.setattr("dpmed.evaluation.frames.PACK", 7)
    found = group_values(
        {"auroc": roc_auc_score}, truth_N=truth_N, predicted_N=score_N, group_N=group_N
    )
    frame = MetricFrame(
        metrics=roc_auc_score, y_true=truth_N, y_pred=score_N, sensitive_features=group_N
    )
    assert found["auroc"] == pytest.approx(frame.by_group.to_dict())
