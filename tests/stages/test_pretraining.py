"""From public pretraining to a private run: what is declared travels with the weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpmed.compose import compose
from dpmed.errors import UserError
from dpmed.models import read_provenance
from dpmed.pipeline import run
from dpmed.run_record import code_version
from dpmed.stages.shared_patients import hashes_of
from dpmed.stages.study import load_study
from tests.stages.conftest import SMALL, write_hospital

DOMAIN = [word.replace("init=scratch", "init=domain") for word in SMALL]


def test_a_public_run_starts_private_ones_of_other_patients_only(
    hospital: list[str], tmp_path: Path
) -> None:
    ledger = f"privacy.ledger_dir={tmp_path / 'ledger'}"
    corpus = write_hospital(tmp_path / "corpus", site="archive", num_patients=60)
    config = compose([*SMALL, *corpus, ledger, "data.public_licence=CC0"])
    pretrained = tmp_path / "pretrained"
    run(config, run_dir=pretrained)
    declared = read_provenance(pretrained / "model" / "model.safetensors")
    assert declared is not None
    (seen,) = declared.data_sets
    table = load_study(config.data, unit="patient", num_workers=0).table
    assert set(seen.patient_hashes) == hashes_of(table[table["split"] == "train"], config.data)
    assert (seen.name, seen.licence) == ("archive", "CC0")
    assert declared.code_version == code_version()
    assert declared.preprocessing["image_size"] == 32

    private = [word for word in DOMAIN if word != "privacy=none"]
    private += ["privacy.epsilon=8", "privacy.delta=1e-3", f"init.path={pretrained}", ledger]
    assert run(compose([*hospital, *private]), run_dir=tmp_path / "private") is not None
    with pytest.raises(UserError, match="have seen the private data set 'archive'"):
        run(compose([*corpus, *private]), run_dir=tmp_path / "same")


def test_a_run_on_data_not_declared_public_starts_nothing(
    finished_run: Path, hospital: list[str], tmp_path: Path
) -> None:
    declared = read_provenance(finished_run / "model" / "model.safetensors")
    assert declared is not None
    assert not declared.data_sets[0].patient_hashes, "hashes of private patients stay at home"
    words = [*hospital, *DOMAIN, f"init.path={finished_run}", "data.id=elsewhere"]
    with pytest.raises(UserError, match="not declared public"):
        run(compose(words), run_dir=tmp_path / "run")


def test_any_release_can_be_declared_public_and_pretrained_on() -> None:
    words = ["experiment=cxr_pretrain", "data=kermany", "data.root=x", "privacy.num_units=2500"]
    config = compose(words)
    assert config.data.public_licence == "CC BY 4.0"
    assert (config.privacy.enabled, config.init.source) == (False, "scratch")
    assert compose(["experiment=cxr_pretrain"]).data.id == "synthetic-cxr-public"


def test_a_corpus_that_is_not_declared_public_is_refused_before_pretraining() -> None:
    words = ["experiment=cxr_pretrain", "data=chexpert", "data.root=x", "privacy.num_units=9"]
    with pytest.raises(UserError, match=r"chexpert is not declared public.*data\.public_licence="):
        compose(words)
    assert compose([*words, "data.public_licence=CC BY 4.0"]).training.pretraining
