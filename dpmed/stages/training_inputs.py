"""What each logical step computes on: the images, or the features of a frozen backbone.

Where only the head is trained and images are not augmented, the backbone says the same of an image
in every step. It is then asked once for each training image, and the steps train the head alone:
the same numbers up to rounding, at a small part of the cost. A feature depends on its own image
only, so that neither clipping nor accounting changes.

Shapes: N images, D features.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dpmed import models
from dpmed.config import RunConfig
from dpmed.privacy.clipping.clipper import Clipper
from dpmed.stages.learner import Learner, autocast, clipper_for
from dpmed.stages.study import Study
from dpmed.training.augmentation import Augmentation
from dpmed.training.classifier import PlainGradientSum
from dpmed.training.predict import forward_batches

logger = logging.getLogger(__name__)

_HEAD = {"head.fc.weight", "head.fc.bias"}


@dataclass(frozen=True, kw_only=True)
class TrainingInputs:
    """Inputs of the steps and the module that answers them.

    Args:
        gradient_sum: a clipper, or its plain twin, over the trained parameters.
        inputs_N: uint8 images (N, H, W) or volumes (N, D, H, W), or features (N, D).
        rows: the input of each row of the training table.
    """

    gradient_sum: Clipper | PlainGradientSum
    inputs_N: NDArray[Any]
    rows: NDArray[np.int64]


def make_training_inputs(
    config: RunConfig,
    learner: Learner,
    study: Study,
    augmentation: Augmentation | None,
    *,
    expected_batch_size: int,
) -> TrainingInputs:
    """The images and the whole model, or the features and the head where nothing else is trained.

    Guarantee:
        The clipper has the sensitivity of `learner.clipper`, which the plan was made with.
    """
    rows = study.rows_of("train")
    if len(rows) and augmentation is None and _only_head_is_trained(config, learner.model):
        logger.info("training   on features of the frozen backbone, computed once")
        module: nn.Module = nn.Sequential(nn.Flatten(1), learner.model.head.fc)
        inputs_N, input_rows = _features(config, learner.model, study, rows), np.arange(len(rows))
    else:
        module, inputs_N, input_rows = learner.model, study.images_NHW, rows
    if learner.clipper is None:
        plain = PlainGradientSum(module, expected_batch_size=expected_batch_size)
        return TrainingInputs(gradient_sum=plain, inputs_N=inputs_N, rows=input_rows)
    clipper = learner.clipper if module is learner.model else clipper_for(config, module)
    assert clipper.sensitivity == learner.clipper.sensitivity
    return TrainingInputs(gradient_sum=clipper, inputs_N=inputs_N, rows=input_rows)


def _only_head_is_trained(config: RunConfig, model: nn.Module) -> bool:
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return trained == _HEAD and not config.model.drop_path_rate


def _features(config: RunConfig, model: Any, study: Study, rows: NDArray[np.int64]) -> NDArray[Any]:
    """What the last linear layer sees of each training image, shape (N, D)."""
    dtype = next(model.parameters()).dtype

    def features(images: Tensor) -> NDArray[Any]:
        with autocast(config):
            return models.embed(model, images).to(dtype).cpu().numpy()

    batches = forward_batches(
        model,
        features,
        study.images_NHW,
        rows,
        batch_size=config.performance.physical_batch_size,
        description="computing features",
    )
    features_ND = np.concatenate(list(batches))
    model.train()
    return features_ND
