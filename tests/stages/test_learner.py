"""The settings of a run reach the clipper."""

from __future__ import annotations

import pytest
import torch

from dpmed.compose import compose
from dpmed.errors import UserError
from dpmed.stages.learner import build_learner


def test_a_batch_above_the_physical_size_is_refused_with_the_setting() -> None:
    words = ["model.name=test_convnext", "init=scratch", "data.preprocessing.image_size=32"]
    learner = build_learner(compose([*words, "performance.physical_batch_size=6"]))
    clipper = learner.clipper
    assert clipper is not None
    clipper.backward(clipper.module(torch.rand(6, 1, 32, 32)).mean(1), torch.ones(6))
    losses_V = clipper.module(torch.rand(7, 1, 32, 32)).mean(1)
    with pytest.raises(UserError, match=r"7 units.*performance\.physical_batch_size.*most 6"):
        clipper.backward(losses_V, torch.ones(7))
