"""The start-up proof of a run: on what will train, with its loss, precision and augmentation.

It draws its own inputs and reads no data; what is checked is in `dpmed.privacy.startup`.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from dpmed.config import RunConfig
from dpmed.privacy.clipping.clipper import Clipper
from dpmed.privacy.startup import ClippingProof, prove_clipping, synthetic_batch
from dpmed.stages.learner import NUM_PROOF_UNITS, autocast
from dpmed.training.augmentation import NUM_PARAMETERS, Augmentation
from dpmed.training.loss import per_view_loss

logger = logging.getLogger(__name__)


def prove_run(
    config: RunConfig,
    clipper: Clipper,
    image_shape: tuple[int, ...],
    augmentation: Augmentation | None,
) -> ClippingProof:
    """Checks isolation and exactness on made-up inputs of a shape.

    Every unit's views are augmented alike, so that a unit is the same alone and in a batch.

    Raises:
        UserError: a unit is not isolated, or the engine is off; names the module.
    """
    parameter, performance = next(clipper.module.parameters()), config.performance
    num_units, num_views = NUM_PROOF_UNITS, clipper.views_per_unit
    if performance.compile:
        # Another size would be other compiled code than that which trains.
        num_units = max(num_units, performance.physical_batch_size)
    inputs_V, targets_V = synthetic_batch(
        num_units=num_units,
        views_per_unit=num_views,
        image_shape=image_shape,
        num_labels=len(config.data.labels),
        dtype=parameter.dtype,
        device=parameter.device,
    )
    pos_weight_L = pos_weight(config, parameter.device)
    generator = torch.Generator().manual_seed(0)
    draws_KP = 2.0 * torch.rand(num_views, NUM_PARAMETERS, generator=generator) - 1.0

    def losses(images: Tensor, targets: Tensor) -> Tensor:
        if augmentation is not None:
            draws_VP = draws_KP.repeat(len(images) // num_views, 1).to(images.device)
            images = augmentation.apply(images, draws_VP)
        with autocast(config):
            logits = clipper.module(images)
        return per_view_loss(logits, targets, pos_weight_L=pos_weight_L)

    proof = prove_clipping(clipper, losses=losses, inputs_V=inputs_V, targets_V=targets_V)
    logger.info("proof      %s", proof.sentence())
    return proof


def pos_weight(config: RunConfig, device: torch.device) -> Tensor | None:
    """The literal weights of positives of the settings."""
    weights = config.training.pos_weight
    return None if weights is None else torch.tensor(weights, device=device)
