"""The start banner says how gradients are clipped, and which modules run on the generic rule."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dpmed.compose import compose
from dpmed.privacy.plan import PrivacyPlan
from dpmed.run_record import RunRecord
from dpmed.stages.banner import log_banner
from dpmed.stages.learner import build_learner

WORDS = ["init=scratch", "data.preprocessing.image_size=32"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model.name=test_convnext"], "onepass; modules on the generic rule: none"),
        (
            ["model.name=convnext_zepto_rms", "model.trainable=norm_and_bias"],
            "onepass; modules on the generic rule: stem.1, stages.0.blocks.0.norm,",
        ),
        (
            ["model.name=test_convnext", "performance.clipping_engine=opacus_functorch"],
            "opacus_functorch: a slower reference, Opacus with the per-sample gradient",
        ),
    ],
)
def test_the_banner_names_engine_and_generic_modules(
    words: list[str],
    line: str,
    private_plan: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = compose([*WORDS, *words])
    learner = build_learner(config)
    with caplog.at_level(logging.INFO):
        log_banner(
            config, learner, PrivacyPlan.from_json(private_plan), RunRecord(tmp_path, config)
        )
    assert f"clipping   {line}" in caplog.text
    assert f"{learner.num_trainable:,} of {learner.num_parameters:,} parameters" in caplog.text
