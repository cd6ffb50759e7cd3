"""What `dpmed plan` prints: the guarantee in words, the noise, and the time and memory to expect.

Nothing of the data set is opened. Time is measured on made-up images with the real model and
engine: one physical batch, a few times.
"""

from __future__ import annotations

import math
import time

import psutil
import torch

from dpmed.config import RunConfig
from dpmed.privacy.plan import PrivacyPlan
from dpmed.stages.learner import Learner, autocast, build_learner, device_of, input_shape
from dpmed.stages.planning import make_run_plan
from dpmed.training.classifier import PlainGradientSum
from dpmed.training.loss import per_view_loss

_ROUNDS = 3


def describe_plan(config: RunConfig) -> str:
    """Statement, key figures, and the expected time and peak memory of the training."""
    learner = build_learner(config)
    plan = make_run_plan(config, learner)
    seconds, memory_bytes = _measure(config, learner, plan)
    batches = math.ceil(plan.expected_batch_size / config.performance.physical_batch_size)
    total_minutes = seconds * batches * plan.num_steps / 60
    figures = [
        ("noise multiplier", f"{plan.noise_multiplier:g}"),
        ("sample rate", f"{plan.sample_rate:g} ({plan.expected_batch_size} of {plan.num_units})"),
        ("logical steps", f"{plan.num_steps}"),
        ("clip norm", f"{plan.max_grad_norm:g}"),
        ("physical batch", f"{config.performance.physical_batch_size} units, {seconds:.2f} s"),
        ("training time", f"about {total_minutes:.0f} minutes on {device_of(config)}"),
        ("peak memory", f"about {memory_bytes / 2**30:.1f} GiB"),
    ]
    return "\n".join([plan.statement(), "", *(f"{name:<18}{text}" for name, text in figures)])


def _measure(config: RunConfig, learner: Learner, plan: PrivacyPlan) -> tuple[float, int]:
    """Seconds a physical batch (the fastest of a few), and peak memory in bytes."""
    device = device_of(config)
    views = config.performance.physical_batch_size * config.privacy.views_per_unit
    dtype = next(learner.model.parameters()).dtype
    images = torch.rand(views, *input_shape(config), device=device, dtype=dtype)
    targets = torch.zeros(views, len(config.data.labels), device=device)
    weights = torch.full((views,), 1.0 / config.privacy.views_per_unit, device=device)
    gradient_sum = learner.clipper or PlainGradientSum(
        learner.model, expected_batch_size=plan.expected_batch_size
    )
    seconds = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        with autocast(config):
            logits = gradient_sum.module(images)
            losses = per_view_loss(logits, targets)
        gradient_sum.backward(losses, weights)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    if device.type == "cuda":
        return min(seconds), torch.cuda.max_memory_allocated()
    return min(seconds), psutil.Process().memory_info().rss
