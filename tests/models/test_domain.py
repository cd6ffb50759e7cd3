"""init=domain takes what cxr_pretrain wrote, with a new head, and refuses what is not declared."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dpmed.errors import UserError
from dpmed.models import Provenance, SeenDataSet, build_model, check_available, initialise
from dpmed.models.weights import read_provenance, save_weights

PUBLIC = SeenDataSet(name="kermany", data_id="kermany", licence="CC BY 4.0", patient_hashes=("a",))
LABELS = ["pneumonia", "no_finding"]
SIZES = {"num_labels": 2, "image_size": 32}


def run_folder(folder: Path, *data_sets: SeenDataSet) -> Path:
    model = build_model(name="test_convnext", seed=1, **SIZES)
    history = Provenance(source="scratch", architecture="test_convnext")
    for data_set in data_sets:
        history = history.after_training_on(
            data_set, labels=LABELS, preprocessing={"image_size": 32}, code_version="1"
        )
    (folder / "model").mkdir(parents=True)
    save_weights(model, folder / "model" / "model.safetensors", history)
    return folder


def test_round_trip_keeps_the_backbone_and_the_history_and_renews_the_head(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = run_folder(tmp_path / "run", PUBLIC)
    check_available(name="test_convnext", init="domain", path=folder)
    model = build_model(name="test_convnext", seed=2, **SIZES)
    head = model.head.fc.weight.detach().clone()
    with caplog.at_level(logging.WARNING):
        history = initialise(
            model, init="domain", path=folder, labels=LABELS, preprocessing={"image_size": 64}
        )
    pretrained = build_model(name="test_convnext", seed=1, **SIZES)
    assert torch.equal(model.stem[-2].weight, pretrained.stem[-2].weight)
    assert torch.equal(model.head.fc.weight, head), "the same labels: the head is new all the same"
    assert history.data_sets == (PUBLIC,)
    assert history.rebuilt == ("head.fc.weight", "head.fc.bias")
    assert "image_size=32 (here 64)" in caplog.text
    written = read_provenance(folder / "model" / "model.safetensors")
    assert written is not None
    assert (written.code_version, dict(written.preprocessing)) == ("1", {"image_size": 32})


@pytest.mark.parametrize(
    ("data_sets", "architecture", "message"),
    [
        ([], "test_convnext", "does not say which data"),
        ([SeenDataSet(name="ward")], "test_convnext", "has seen ward, which is not declared publ"),
        ([SeenDataSet(name="ward"), PUBLIC], "test_convnext", "has seen ward"),
        ([PUBLIC], "convnext_atto", "holds test_convnext, and model.name=convnext_atto"),
    ],
)
def test_what_is_not_declared_public_or_does_not_fit_is_refused_before_any_work(
    data_sets: list[SeenDataSet], architecture: str, message: str, tmp_path: Path
) -> None:
    folder = run_folder(tmp_path / "run", *data_sets)
    with pytest.raises(UserError, match=message):
        check_available(name=architecture, init="domain", path=folder)


def test_files_without_a_history_are_refused(tmp_path: Path) -> None:
    bare = tmp_path / "bare.safetensors"
    save_file(build_model(name="test_convnext", **SIZES).state_dict(), bare)
    for path, message in (
        (bare, "does not say which data"),
        (tmp_path, "a folder without model/model.safetensors"),
        (tmp_path / "absent", "not there"),
        (None, "init=domain needs init.path"),
    ):
        with pytest.raises(UserError, match=message):
            check_available(name="test_convnext", init="domain", path=path)


def test_pretraining_may_start_from_the_shipped_weights() -> None:
    model = build_model(name="convnext_atto", num_labels=2, image_size=32)
    history = initialise(model, init="synthetic", labels=LABELS)
    assert all(seen.licence for seen in history.data_sets)
