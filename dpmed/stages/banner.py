"""The one banner at the start of a run: what is trained, on what, under which guarantee, where."""

from __future__ import annotations

import logging
import platform

import torch

from dpmed.config import RunConfig
from dpmed.privacy.clipping.clipper import Clipper
from dpmed.privacy.plan import PrivacyPlan
from dpmed.run_record import RunRecord
from dpmed.stages.learner import Learner, device_of

logger = logging.getLogger(__name__)


def log_banner(config: RunConfig, learner: Learner, plan: PrivacyPlan, record: RunRecord) -> None:
    """Logs the banner and keeps its facts in `run.json`."""
    device = device_of(config)
    record.update(
        model=config.model.name,
        model_kind=config.model.kind,
        image_size=config.data.preprocessing.image_size,
        num_parameters=learner.num_parameters,
        num_trainable=learner.num_trainable,
        trainable=config.model.trainable,
        init=learner.provenance.summary(),
        device=_device_name(device),
        threads=torch.get_num_threads(),
        precision=config.performance.precision,
        clipping_engine=None if learner.clipper is None else config.performance.clipping_engine,
        generic_modules=[] if learner.clipper is None else list(learner.clipper.generic_modules),
    )
    logger.info("\n%s\n", "\n".join(f"{name:<10} {text}" for name, text in _lines(config, learner)))
    logger.info("%s\n", plan.statement())


def _lines(config: RunConfig, learner: Learner) -> list[tuple[str, str]]:
    training = config.training
    lines = [
        (
            "model",
            f"{config.model.name} ({config.model.kind}), "
            f"{config.data.preprocessing.image_size} px, "
            f"{learner.num_trainable:,} of {learner.num_parameters:,} parameters trainable "
            f"({config.model.trainable})",
        ),
        ("start", learner.provenance.describe()),
        ("data", f"{config.data.id}, labels {', '.join(config.data.labels)}"),
        (
            "schedule",
            f"{training.num_steps} logical steps, {training.optimizer}, "
            f"learning rate {training.learning_rate:g}, {training.schedule}",
        ),
        ("device", f"{_device_name(device_of(config))}, {config.performance.precision}"),
    ]
    if learner.clipper is not None:
        lines.append(("clipping", _clipping(config, learner.clipper)))
    return lines


def _clipping(config: RunConfig, clipper: Clipper) -> str:
    performance = config.performance
    if performance.clipping_engine != "onepass":
        return (
            f"{performance.clipping_engine}: a slower reference, Opacus with the per-sample "
            "gradient of its Conv2d corrected"
        )
    compiled = ", compiled" if performance.compile else ""
    generic = ", ".join(clipper.generic_modules) or "none"
    return f"onepass{compiled}; modules on the generic rule: {generic}"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
