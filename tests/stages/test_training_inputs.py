"""A frozen backbone is asked once for each image, and the head that is trained is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.models.convnext import ConvNeXt
from torch import nn

from dpmed.compose import compose
from dpmed.models.convnext3d import ConvNeXt3d
from dpmed.models.convnext_2p5d import SliceConvNeXt
from dpmed.pipeline import run
from dpmed.privacy.clipping.clipper import Clipper
from dpmed.privacy.startup import ClippingProof, prove_clipping
from dpmed.stages import proof, training_inputs
from tests.stages.conftest import SMALL, write_hospital

WORDS = [
    *[word for word in SMALL if word != "privacy=none"],
    "privacy.epsilon=8",
    "privacy.delta=1e-3",
    "privacy.views_per_unit=2",
    "privacy.injected_key=" + "ab" * 32,
    "model.trainable=head",
    "training.optimizer=sgd",
    "training.num_steps=3",
]


def test_training_on_features_equals_training_on_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital = write_hospital(tmp_path / "hospital", site="community", num_patients=80)
    _check_that_heads_are_equal([*hospital, *WORDS], ConvNeXt, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("model", "kind"), [("convnext_2p5d", SliceConvNeXt), ("convnext3d", ConvNeXt3d)]
)
def test_training_on_features_of_volumes_equals_training_on_volumes(
    model: str, kind: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write_cubes(tmp_path / "cubes.npz")
    words = [word for word in WORDS if not word.startswith(("data.", "privacy.views"))]
    words = ["data=volumes", "data.id=drawn", "data.unit=image", f"model={model}", *words]
    words += [f"data.path={path}", "data.preprocessing.image_size=32", "evaluation.subgroups=[]"]
    _check_that_heads_are_equal(words, kind, tmp_path, monkeypatch)


def _write_cubes(path: Path) -> Path:
    """Volumes with a bright box whose size says the class."""
    arrays = {}
    for part in ("train", "val", "test"):
        classes = np.arange(60 if part == "train" else 8) % 2
        volumes = np.zeros((len(classes), 8, 8, 8), np.uint8)
        for volume, positive in zip(volumes, classes, strict=True):
            volume[: 3 + 3 * positive, 2:6, 2:6] = 255
        arrays |= {f"{part}_images": volumes, f"{part}_labels": classes[:, None].astype(np.uint8)}
    np.savez_compressed(path, **arrays)
    return path


def _check_that_heads_are_equal(
    words: list[str], kind: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def head(name: str) -> torch.Tensor:
        folders = [f"data.cache_dir={tmp_path}/cache", f"privacy.ledger_dir={tmp_path}/{name}l"]
        run(compose([*words, *folders]), run_dir=tmp_path / name)
        return load_file(tmp_path / name / "model" / "model.safetensors")["head.fc.weight"]

    proven: list[tuple[type[nn.Module], int]] = []

    def prove(clipper: Clipper, *, inputs_V: torch.Tensor, **rest: Any) -> ClippingProof:
        proven.append((type(clipper.module.get_submodule("_module")), inputs_V.dim()))
        return prove_clipping(clipper, inputs_V=inputs_V, **rest)

    monkeypatch.setattr(proof, "prove_clipping", prove)
    on_features = head("features")
    # Both as they will train: features come as (V, 1, D), like images.
    assert proven == [(kind, 4 if kind is ConvNeXt else 5), (nn.Sequential, 3)]
    monkeypatch.setattr(training_inputs, "_only_head_is_trained", lambda *_: False)
    on_images = head("images")
    assert torch.allclose(on_features, on_images, atol=1e-5)
    assert not torch.allclose(on_features, torch.zeros_like(on_features), atol=1e-3)
