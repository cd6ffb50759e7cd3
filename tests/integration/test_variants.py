"""The settings that a user combines: each runs from the plan to the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpmed.compose import compose
from dpmed.pipeline import run
from tests.integration.conftest import SMALL

SHORT = ["training.num_steps=2", "training.warmup_steps=0"]


@pytest.mark.parametrize(
    "words",
    [
        ["privacy=image", "privacy.epsilon=3"],
        [
            "privacy.views_per_unit=2",
            "training.ema_decay=0.9",
            "privacy.repeat_views=true",
            "augmentation=cxr",
        ],
        ["performance.clipping_engine=opacus_functorch"],
        ["performance.precision=bf16-mixed", "performance.channels_last=true"],
        ["performance.precision=64-true", "model.trainable=lora"],
        ["privacy.clipping_rule=automatic", "model.trainable=norm_and_bias"],
        ["model.trainable=head", "training.optimizer=sgd", "training.pos_weight=[2,2,2,2,1]"],
    ],
    ids=lambda words: " ".join(words),
)
def test_a_variant_runs_to_its_report(words: list[str], tmp_path: Path) -> None:
    folders = [f"data.cache_dir={tmp_path}/cache", f"privacy.ledger_dir={tmp_path}/ledger"]
    report = run(compose([*SMALL, *SHORT, *folders, *words]), run_dir=tmp_path / "run")
    assert report is not None
    assert report.is_file()
    splits = json.loads((tmp_path / "run" / "metrics.json").read_text())["splits"]
    assert ("test_ema" in splits) == ("training.ema_decay=0.9" in words)
