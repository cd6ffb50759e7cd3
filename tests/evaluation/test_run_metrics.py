"""`metrics.json` from a run folder: bad input is noted, and the rest is measured."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from dpmed.compose import compose
from dpmed.errors import UserError
from dpmed.evaluation.metrics import read_metrics
from dpmed.evaluation.predictions import write_predictions
from dpmed.evaluation.run_metrics import write_run_metrics

LABELS = ("pneumonia", "no_finding")


@pytest.fixture
def run_dir(cohort, tmp_path):
    tables = {split: cohort(seed=i, split=split) for i, split in enumerate(("validation", "test"))}
    for split, table in tables.items():
        write_predictions(table, tmp_path / "predictions" / f"{split}.parquet")
    rows = pd.concat(tables.values())[["image", "patient_id", "split"]]
    rows.to_csv(tmp_path / "splits.csv", index=False)
    return tmp_path


def _config(**evaluation):
    config = compose([])
    settings = {"num_bootstrap": 200, "subgroups": ["sex"], "intersections": False} | evaluation
    return replace(
        config,
        data=replace(config.data, labels=list(LABELS)),
        evaluation=replace(config.evaluation, **settings),
    )


def _measure(run_dir, **evaluation):
    return read_metrics(write_run_metrics(_config(**evaluation), run_dir))


def test_a_column_that_is_not_there_is_noted_and_the_others_are_measured(run_dir, cohort):
    external = cohort(seed=7, split="test")
    write_predictions(external, run_dir / "predictions" / "external_south.parquet")
    metrics = _measure(run_dir, subgroups=["sx", "sex"], prevalence_matched=True)
    (note,) = metrics["notes"]
    assert "evaluation.subgroups=sx" in note
    assert "'sex'" in note
    assert set(metrics["splits"]["test"]["subgroups"]) == {"sex"}
    assert "accuracy_matched" in metrics["splits"]["test"]["subgroups"]["sex"]["F"]
    assert set(metrics["external"]) == {"south"}
    assert metrics["geometry"] == {}


@pytest.mark.parametrize("bins", ["cross_site", "private_fair_accurate", [0, 50, 120]])
def test_ages_are_cut_by_preset_or_edges(run_dir, bins):
    metrics = _measure(run_dir, subgroups=["age"], age_bins=bins)
    num_bins = {"cross_site": 3, "private_fair_accurate": 5}.get(str(bins), 2)
    assert len(metrics["splits"]["test"]["subgroups"]["age"]) == num_bins


def test_predictions_of_other_images_are_noted(run_dir, cohort):
    write_predictions(cohort(seed=1, split="other"), run_dir / "predictions" / "validation.parquet")
    metrics = _measure(run_dir)
    (note,) = metrics["notes"]
    assert "predictions of validation do not match splits.csv: 600 of its images" in note
    assert "other-" not in note
    assert metrics["splits"]["test"]["auroc"]["macro"]["value"] > 0.5
    (run_dir / "splits.csv").write_text("image")
    assert "splits.csv cannot be read" in _measure(run_dir)["notes"][0]


def test_without_predictions_the_older_metrics_stay(run_dir):
    before = _measure(run_dir)
    path = run_dir / "predictions" / "test.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="probably truncated"):
        write_run_metrics(_config(), run_dir)
    assert read_metrics(run_dir / "metrics.json") == before
