"""From the model settings to what is trained: the model, its start weights, its gradient engine.

Nothing here has seen private data: it is built before the data is opened, so that the plan can ask
the clipper for its sensitivity and a missing weight file stops the run before any work.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from dpmed import models
from dpmed.config import ImageModel, InflatedModel, RunConfig, SliceModel
from dpmed.privacy.checks import refuse_unsafe
from dpmed.privacy.clipping.clipper import Clipper, make_clipper
from dpmed.stages.compilation import BACKEND, compile_in_place, refuse_without_compiler

logger = logging.getLogger(__name__)

_DTYPES = {"64-true": torch.float64}

#: Units of the start-up proof, also where a physical batch holds fewer.
NUM_PROOF_UNITS = 4


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A model ready for its first step.

    Args:
        model: in training mode, on the run's device.
        provenance: where the start weights come from.
        clipper: the per-unit clipping engine; None without privacy.
        num_parameters: scalars in the model.
        num_trainable: scalars that training moves.
    """

    model: Any
    provenance: models.Provenance
    clipper: Clipper | None
    num_parameters: int
    num_trainable: int


def build_learner(config: RunConfig) -> Learner:
    """Builds the model, loads its start weights and wraps it for per-unit clipping.

    Raises:
        UserError: unknown architecture, weights that cannot be had, a module that mixes samples
            or that no exact clipping rule covers.
    """
    model, provenance = _start(config)
    models.select_trainable(model, trainable=config.model.trainable, seed=config.seed)
    model = model.to(device=device_of(config), dtype=_DTYPES.get(config.performance.precision))
    if config.performance.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if config.performance.compile:
        refuse_without_compiler(device_of(config))
    refuse_unsafe(
        model,
        precision=config.performance.precision,
        pos_weight=config.training.pos_weight,
    )
    if config.performance.compile and not config.privacy.enabled:
        compile_in_place(model)
    return Learner(
        model=model,
        provenance=provenance,
        clipper=clipper_for(config, model) if config.privacy.enabled else None,
        num_parameters=_count(model, trainable_only=False),
        num_trainable=_count(model, trainable_only=True),
    )


def initial_model(config: RunConfig) -> Any:
    """The model as it is before the first private step, built anew: same seed, same weights."""
    model, _ = _start(config)
    return model.to(device=device_of(config), dtype=_DTYPES.get(config.performance.precision))


def device_of(config: RunConfig) -> torch.device:
    """The device that `performance.device` means on this machine."""
    name = config.performance.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _start(config: RunConfig) -> tuple[Any, models.Provenance]:
    init = config.init
    source = {"path": init.path, "sha256": init.sha256, "tag": init.tag}
    models.check_available(name=config.model.name, init=init.source, **source)
    model = unset_model(config)
    provenance = models.initialise(
        model,
        init=init.source,
        labels=config.data.labels,
        preprocessing=asdict(config.data.preprocessing),
        **source,
    )
    models.refuse_if_seen(provenance, data_id=config.data.id)
    return for_volumes(config, model, provenance)


def unset_model(config: RunConfig) -> Any:
    """The 2-D model of the settings with random weights, before any start weights."""
    return models.build_model(
        name=config.model.name,
        num_labels=len(config.data.labels),
        image_size=config.data.preprocessing.image_size,
        in_chans=config.model.in_chans,
        mean=config.model.input_mean,
        std=config.model.input_std,
        drop_path_rate=config.model.drop_path_rate,
        ls_init_value=config.model.ls_init_value,
        seed=config.seed,
    )


def for_volumes(
    config: RunConfig, model: Any, provenance: models.Provenance
) -> tuple[Any, models.Provenance]:
    """The model that `model.kind` asks for, around or inflated from a 2-D one with its weights."""
    match config.model:
        case SliceModel(slice_thickness=slice_thickness, num_heads=num_heads):
            return models.slice_model(
                model,
                provenance,
                slice_thickness=slice_thickness,
                num_heads=num_heads,
                seed=config.seed,
            )
        case InflatedModel(kernel_size=kernel_size):
            return models.inflated_model(
                model, provenance, kernel_size=kernel_size, seed=config.seed
            )
    return model, provenance


def input_shape(config: RunConfig) -> tuple[int, ...]:
    """Of one image (1, H, W), or one volume (1, D, H, W)."""
    num_dimensions = 2 if isinstance(config.model, ImageModel) else 3
    return (1, *[config.data.preprocessing.image_size] * num_dimensions)


def clipper_for(config: RunConfig, model: nn.Module) -> Clipper:
    """The per-unit clipping of the settings, over the trainable parameters of a module."""
    return make_clipper(
        model,
        engine=config.performance.clipping_engine,
        rule=config.privacy.clipping_rule,
        max_grad_norm=config.privacy.max_grad_norm,
        views_per_unit=config.privacy.views_per_unit,
        dtype=_computing_dtype(config),
        max_units=max(config.performance.physical_batch_size, NUM_PROOF_UNITS),
        compile_backend=BACKEND if config.performance.compile else None,
    )


def autocast(config: RunConfig) -> torch.autocast:
    """The context in which the forward pass computes, as Lightning's precision plugin sets it."""
    return torch.autocast(
        device_of(config).type, torch.bfloat16, enabled=config.performance.precision == "bf16-mixed"
    )


def _computing_dtype(config: RunConfig) -> torch.dtype | None:
    return torch.bfloat16 if config.performance.precision == "bf16-mixed" else None


def _count(model: nn.Module, *, trainable_only: bool) -> int:
    return sum(
        parameter.numel()
        for parameter in model.parameters()
        if parameter.requires_grad or not trainable_only
    )
