"""Weight files: formats, sums, wrappers, damage, foreign code."""

from __future__ import annotations

import hashlib
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dpmed.errors import UserError
from dpmed.models.provenance import Provenance, SeenDataSet
from dpmed.models.weights import read_provenance, read_weights, save_weights, sha256_of

TENSORS = {"stem.0.weight": torch.arange(4.0), "head.fc.bias": torch.ones(2)}


def assert_same(found, expected=TENSORS):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)


def test_safetensors_and_torch_files_are_read(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors")
    torch.save(TENSORS, tmp_path / "w.pth")
    assert_same(read_weights(tmp_path / "w.safetensors"))
    assert_same(read_weights(tmp_path / "w.pth"))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_ema"])
@pytest.mark.parametrize("prefix", ["module.", "_module.", "model.", "_orig_mod._module.model."])
def test_wrappers_and_prefixes_are_taken_off(tmp_path, wrapper, prefix):
    prefixed = {prefix + name: tensor for name, tensor in TENSORS.items()}
    torch.save({wrapper: prefixed, "epoch": 3}, tmp_path / "w.ckpt")
    assert_same(read_weights(tmp_path / "w.ckpt"))


def test_saved_weights_carry_their_provenance(tmp_path):
    path = tmp_path / "model.safetensors"
    history = Provenance(
        source="scratch",
        architecture="convnext_atto",
        data_sets=(SeenDataSet(name="cohort", data_id="123"),),
    )
    model = nn.Linear(3, 2)
    save_weights(model, path, history)
    assert_same(read_weights(path), model.state_dict())
    assert read_provenance(path) == history
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_files_without_a_declaration_declare_nothing(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors")
    torch.save(TENSORS, tmp_path / "w.pth")
    assert read_provenance(tmp_path / "w.safetensors") is None
    assert read_provenance(tmp_path / "w.pth") is None


def test_sum_is_checked_and_both_sums_are_shown(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(TENSORS, path)
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    assert sha256_of(path) == actual
    assert_same(read_weights(path, sha256=actual.upper()))
    with pytest.raises(UserError, match=f"{actual}.*{'0' * 64}"):
        read_weights(path, sha256="0" * 64)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"absent.pth is not there"):
        read_weights(tmp_path / "absent.pth")
    with pytest.raises(UserError, match="is a folder"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_damaged_files_are_named(tmp_path, name):
    path = tmp_path / name
    for content in (b"", b"no weights"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"init.path=.*{name}"):
            read_weights(path)
    if path.suffix == ".safetensors":
        with pytest.raises(UserError, match=f"init.path=.*{name}"):
            read_provenance(path)


class _RunsCode:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_code_in_a_torch_file_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": TENSORS, "extra": _RunsCode()}, "w.pth")
    with pytest.raises(UserError, match="could run foreign code"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "executed").exists()


def test_checkpoint_without_tensors_is_explained(tmp_path):
    torch.save({"optimizer": {"lr": 0.1}}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        read_weights(tmp_path / "w.pth")
