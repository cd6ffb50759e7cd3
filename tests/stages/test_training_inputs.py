"""A frozen backbone is asked once for each image, and the head that is trained is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dpmed.compose import compose
from dpmed.pipeline import run
from dpmed.stages import training_inputs
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

    def head(name: str) -> torch.Tensor:
        folders = [f"data.cache_dir={tmp_path}/cache", f"privacy.ledger_dir={tmp_path}/{name}l"]
        run(compose([*hospital, *WORDS, *folders]), run_dir=tmp_path / name)
        return load_file(tmp_path / name / "model" / "model.safetensors")["head.fc.weight"]

    on_features = head("features")
    monkeypatch.setattr(training_inputs, "_only_head_is_trained", lambda *_: False)
    on_images = head("images")
    assert torch.allclose(on_features, on_images, atol=1e-5)
    assert not torch.allclose(on_features, torch.zeros_like(on_features), atol=1e-3)
