"""Start weights that declare a private patient stop the run, before any step and without a name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from dpmed import models
from dpmed.compose import compose
from dpmed.config import DataConfig
from dpmed.errors import UserError
from dpmed.pipeline import run
from dpmed.run_record import RunRecord
from dpmed.stages.shared_patients import hashes_of, refuse_shared_patients
from dpmed.stages.study import load_study
from tests.stages.conftest import SMALL


def test_weights_that_saw_a_training_patient_stop_the_run(
    hospital: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "start.safetensors"
    words = [word.replace("init=scratch", "init=file") for word in SMALL]
    words += [*hospital, f"init.path={path}", f"privacy.ledger_dir={tmp_path / 'ledger'}"]
    config = compose(words)
    table = load_study(config.data, unit="patient", num_workers=0).table
    shared = table[table["split"] == "train"].iloc[:1]
    _save_start(path, shared, config.data)
    with pytest.raises(UserError, match="shares 1 patients") as caught:
        run(config, run_dir=tmp_path / "run")
    assert str(shared["patient_id"].iloc[0]) not in str(caught.value)
    (declared,) = hashes_of(shared, config.data)
    assert declared not in (tmp_path / "run" / "run.json").read_text(encoding="utf-8")
    assert not (tmp_path / "run" / "model").exists()


def test_other_patients_pass_and_a_test_patient_is_warned_about(
    hospital: list[str], tmp_path: Path
) -> None:
    config = compose([*SMALL, *hospital])
    table = load_study(config.data, unit="patient", num_workers=0).table
    elsewhere = dataclasses.replace(config.data, id="another hospital")
    record = RunRecord(tmp_path / "run", config)
    unrelated = _save_start(tmp_path / "a.safetensors", table, elsewhere)
    refuse_shared_patients(unrelated, config.data, table, record)
    assert not record.content["warnings"]
    tested = table[table["split"] == "test"].iloc[:1]
    seen = _save_start(tmp_path / "b.safetensors", tested, config.data)
    refuse_shared_patients(seen, config.data, table, record)
    assert "have seen 1 of the validation and test patients" in record.content["warnings"][0]


def test_releases_share_an_id_space_under_any_name() -> None:
    table = pd.DataFrame({"patient_id": ["1", "2", None]})
    first = compose(["data=chestxray14", "data.root=x"]).data
    second = dataclasses.replace(first, id="our copy of it")
    assert hashes_of(table, first) == hashes_of(table, second)
    assert len(hashes_of(table, first)) == 2
    assert not hashes_of(table, first) & hashes_of(table, compose([]).data)


def _save_start(path: Path, table: pd.DataFrame, config: DataConfig) -> models.Provenance:
    """Random weights that declare the patients of a table as seen."""
    model = models.build_model(name="test_convnext", num_labels=2, image_size=32, ls_init_value=0.1)
    seen = models.SeenDataSet(name="public corpus", patient_hashes=tuple(hashes_of(table, config)))
    history = models.Provenance(
        source="file", architecture="test_convnext", labels=("a", "b"), data_sets=(seen,)
    )
    models.save_weights(model, path, history)
    return history
