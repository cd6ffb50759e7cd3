"""A finished model on other patients: frozen thresholds, missing labels, and the site matrix."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpmed.cli import main
from dpmed.compose import compose, compose_data
from dpmed.config import RunConfig
from dpmed.errors import UserError
from dpmed.evaluation.metrics import read_metrics
from dpmed.pipeline import run
from dpmed.stages.external import _preprocessed_as, predict_external
from tests.stages.conftest import SMALL, write_hospital


@pytest.fixture
def copied_run(finished_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


def test_evaluate_freezes_thresholds_and_says_which_label_is_lacking(
    copied_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = write_hospital(
        tmp_path / "hospital", site="community", num_patients=40, labels=["no_finding"]
    )
    before = read_metrics(copied_run / "metrics.json")
    with caplog.at_level(logging.WARNING):
        main(["evaluate", f"run={copied_run}", *words, "--split", "all"])
    assert "community has no label for cardiomegaly" in caplog.text
    after = read_metrics(copied_run / "metrics.json")
    assert after["thresholds"] == before["thresholds"]
    assert after["splits"]["test"]["auroc"] == before["splits"]["test"]["auroc"]
    auroc = after["external"]["community"]["auroc"]
    assert auroc["cardiomegaly"]["value"] is None
    predictions = pd.read_parquet(copied_run / "predictions" / "external_community.parquet")
    assert predictions["label_cardiomegaly"].isna().all()
    threshold = after["thresholds"]["no_finding"]["value"]
    positive = predictions["label_no_finding"] == 1
    recall = (predictions.loc[positive, "prob_no_finding"].astype(float) >= threshold).mean()
    sensitivity = after["external"]["community"]["sensitivity"]["no_finding"]["value"]
    assert sensitivity == pytest.approx(recall)
    assert "community" in (copied_run / "report" / "index.html").read_text(encoding="utf-8")


def test_training_patients_and_foreign_labels_are_refused(
    copied_run: Path, hospital: list[str]
) -> None:
    with pytest.raises(UserError, match="took part in training or validation"):
        predict_external(copied_run, compose_data(hospital), split="all")
    other = compose_data([*hospital, "data.labels=[lesion]", "+data.label_map.lesion=no_finding"])
    with pytest.raises(UserError, match="has none of them"):
        predict_external(copied_run, other)
    with pytest.raises(UserError, match="the run's own"):
        compose_data([*hospital, "model.name=convnext_tiny"])
    with pytest.raises(UserError, match="data is missing"):
        compose_data(["data.labels=[a]"])


def test_matrix_has_each_model_on_each_site(
    copied_run: Path, run_config: RunConfig, tmp_path: Path
) -> None:
    words = write_hospital(tmp_path / "hospital", site="community", num_patients=60)
    other = compose([*SMALL, *words, f"privacy.ledger_dir={tmp_path / 'ledger'}"])
    run(other, run_dir=tmp_path / "other")
    output = tmp_path / "matrix"
    main(["matrix", str(copied_run), str(tmp_path / "other"), "--output", str(output)])
    table = pd.read_csv(output / "matrix.csv")
    macro = table[table["label"] == "macro"].set_index(["train_site", "test_site"])
    assert len(macro) == 4
    for folder, site in ((copied_run, "university"), (tmp_path / "other", "community")):
        metrics = read_metrics(folder / "metrics.json")
        away = "community" if site == "university" else "university"
        found = macro.loc[(site, site), "value"], macro.loc[(site, away), "value"]
        expected = (
            metrics["splits"]["test"]["auroc"]["macro"]["value"],
            metrics["external"][away]["auroc"]["macro"]["value"],
        )
        np.testing.assert_allclose(found, expected)
        # Paired with the model at home on the same images, so the values' own difference.
        np.testing.assert_allclose(
            macro.loc[(away, site), "minus_home"],
            macro.loc[(away, site), "value"] - macro.loc[(site, site), "value"],
        )
    assert "university, no DP" in (output / "index.html").read_text(encoding="utf-8")
    assert (output / "figures" / "site_matrix_macro.svg").is_file()
    alone = json.loads((copied_run / "predictions" / "external_community.json").read_text())
    assert alone["split"] == "test"
    with pytest.raises(SystemExit, match="a matrix needs two"):
        main(["matrix", str(copied_run), str(copied_run), "--output", str(output)])


def test_the_files_keep_their_photometric_tag_under_the_models_preprocessing() -> None:
    own = compose(["preprocessing=paper"]).data
    words = ["data=chexpert", "data.root=x", "data.preprocessing.photometric=monochrome2"]
    used = _preprocessed_as(own, compose_data(words)).preprocessing
    assert used == replace(own.preprocessing, photometric="monochrome2")
    with pytest.raises(UserError, match="preprocessing, thresholds and evaluation are the run's"):
        compose_data([*words, "data.preprocessing.equalize=true"])
