"""The start-up proof of a run covers what is done to its batches on the way to the model."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from torch import Tensor

from dpmed.compose import compose
from dpmed.errors import UserError
from dpmed.privacy.startup import ClippingProof
from dpmed.stages.learner import build_learner, input_shape
from dpmed.stages.proof import prove_run
from dpmed.training.augmentation import Augmentation

WORDS = [
    "model.name=test_convnext",
    "init=scratch",
    "data.preprocessing.image_size=32",
    "augmentation=cxr",
    "privacy.views_per_unit=2",
    "training.pos_weight=[2,2,2,2,1]",
]


class MixUp(Augmentation):
    """Blends every image with another one of its batch."""

    def apply(self, images_V1HW: Tensor, draws_VP: Tensor) -> Tensor:
        return 0.7 * images_V1HW + 0.3 * images_V1HW.flip(0)


def prove(kind: type[Augmentation]) -> ClippingProof:
    config = compose(WORDS)
    clipper = build_learner(config).clipper
    assert clipper is not None
    settings = asdict(config.augmentation)
    augmentation = kind(**settings, seed=0, keys_N=np.zeros(0, np.uint64))
    return prove_run(config, clipper, input_shape(config), augmentation)


def test_the_augmentation_is_proven_with_the_rest() -> None:
    assert prove(Augmentation).worst_relative_error < 1e-4


def test_an_augmentation_that_mixes_the_batch_stops_the_run() -> None:
    with pytest.raises(UserError, match="what is done to the batch before the model"):
        prove(MixUp)
