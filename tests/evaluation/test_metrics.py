"""The file format of `metrics.json`, and what it says about bad input."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from dpmed.errors import UserError
from dpmed.evaluation.geometry import measure_geometry
from dpmed.evaluation.metrics import evaluate, metrics_schema, read_metrics, write_metrics
from dpmed.evaluation.probe import measure_utilisation

LABELS = ("pneumonia", "no_finding")
FIELDS = {"value", "ci_low", "ci_high", "num_positive", "num_negative"}


@pytest.fixture(scope="module")
def metrics(cohort):
    splits = {"validation": cohort(seed=1, split="validation"), "test": cohort()}
    return evaluate(
        splits, labels=LABELS, num_bootstrap=200, external={"south": cohort(seed=2, split="south")}
    )


def test_the_promised_paths_hold_the_five_fields(metrics):
    test = metrics["splits"]["test"]
    for entry in (
        test["auroc"]["macro"],
        test["auroc"]["pneumonia"],
        test["subgroups"]["sex"]["F"]["auroc"]["pneumonia"],
        test["subgroups"]["age"]["[30, 60)"]["tpr"]["no_finding"],
        test["subgroups"]["sex"]["M"]["fpr"]["no_finding"],
        metrics["gaps"]["test"]["sex"]["auroc"]["macro"],
        metrics["external"]["south"]["auroc"]["macro"],
    ):
        assert set(entry) >= FIELDS
        assert entry["ci_low"] <= entry["value"] <= entry["ci_high"]


def test_a_written_file_is_read_back_the_same(metrics, tmp_path):
    path = write_metrics(metrics, tmp_path / "metrics.json")
    assert read_metrics(path) == json.loads(json.dumps(metrics))
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_a_null_without_a_reason_breaks_the_schema(metrics, tmp_path):
    broken = json.loads(json.dumps(metrics))
    broken["splits"]["test"]["auroc"]["macro"]["value"] = None
    with pytest.raises(UserError, match=r"splits\.test\.auroc\.macro"):
        write_metrics(broken, tmp_path / "metrics.json")


def test_a_truncated_file_is_named(metrics, tmp_path):
    path = write_metrics(metrics, tmp_path / "metrics.json")
    path.write_text(path.read_text()[:1000])
    with pytest.raises(UserError, match=r"metrics\.json is not JSON"):
        read_metrics(path)


def test_a_hopeless_label_is_null_with_a_reason_and_the_others_stay(cohort):
    labels = ("usual", "absent", "constant", "spoilt", "missing")
    splits = {
        name: cohort(seed=seed, split=name, labels=labels)
        for seed, name in enumerate(("validation", "test"))
    }
    for table in splits.values():
        table["label_absent"] = np.float32(0)
        table["prob_constant"] = np.float32(0.25)
        table.loc[3:7, "prob_spoilt"] = np.nan
        table["label_missing"] = np.float32(np.nan)
    metrics = evaluate(splits, labels=labels, num_bootstrap=100)
    auroc = metrics["splits"]["test"]["auroc"]
    assert auroc["usual"]["value"] > 0.5
    assert auroc["macro"]["value"] == auroc["usual"]["value"]
    assert auroc["macro"]["labels_left_out"] == ["absent", "constant", "spoilt", "missing"]
    assert auroc["absent"]["reason"] == "not estimable: 0 positives, fewer than 1"
    assert auroc["constant"]["reason"] == "not estimable: all 600 scores are equal"
    assert auroc["spoilt"]["reason"] == "not estimable: 5 of 600 scores are not finite"
    assert auroc["missing"]["reason"] == "not estimable: no labelled images"
    assert metrics["splits"]["test"]["subgroups"]["sex"]["F"]["auroc"]["usual"]["value"] > 0.5


def test_without_validation_the_thresholded_metrics_say_so(cohort):
    metrics = evaluate({"test": cohort()}, labels=LABELS, num_bootstrap=50)
    entry = metrics["splits"]["test"]["sensitivity"]["pneumonia"]
    assert entry["value"] is None
    assert "no threshold" in entry["reason"]
    assert "no validation split" in metrics["thresholds"]["pneumonia"]["reason"]
    assert metrics["splits"]["test"]["auroc"]["macro"]["value"] > 0.5


def test_geometry_goes_into_the_file(cohort, tmp_path):
    rows = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float16)
    table = cohort()
    geometry = measure_geometry(rows, rows[::-1], patient_ids=table["patient_id"].to_numpy())
    geometry |= measure_utilisation(table, table, labels=LABELS, num_bootstrap=20)
    metrics = evaluate(
        {"test": table},
        labels=LABELS,
        subgroups=(),
        num_bootstrap=20,
        geometry=geometry,
    )
    found = read_metrics(write_metrics(metrics, tmp_path / "metrics.json"))
    assert 0 < found["geometry"]["displacement"]["value"] < 4


def test_torch_is_not_needed():
    code = "import sys, dpmed.evaluation.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_schema_is_itself_valid():
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(metrics_schema())
