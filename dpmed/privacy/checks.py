"""What would silently void the guarantee, refused before training.

Settings and modules that make one patient's contribution depend on another's, or that spend
privacy outside the plan. It reads the model's modules, never data. Whether gradients really are
separate on the real model is measured by the clipping engine's start-up proof, not here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from opacus.validators import ModuleValidator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dpmed.errors import UserError, did_you_mean

PRECISIONS = ("32-true", "64-true", "bf16-mixed")
_RUNNING_STATISTICS = ("running_mean", "running_var")
_MIXES_BY_NAME = re.compile(r"batch_?(re)?norm|batchinstancenorm|switch(able)?norm|iternorm", re.I)


def refuse_unsafe(
    model: nn.Module,
    *,
    precision: str,
    accumulate_grad_batches: int = 1,
    sampler: object | None = None,
    pos_weight: Sequence[float] | None = None,
    num_devices: int = 1,
) -> None:
    """Stop before training where the guarantee would not hold.

    Args:
        model: as it will be trained.
        precision: Lightning's name of the numerical precision.
        accumulate_grad_batches: Lightning's; a logical step is accumulated by the sampler instead.
        sampler: a sampler of the user's, which must not exist: Poisson draws are what is accounted.
        pos_weight: literal weights of positive labels from the configuration.
        num_devices: processes that train together.

    Raises:
        UserError: names the module or setting, says why, and what to do instead.
    """
    _refuse_mixing_modules(model)
    _refuse_precision(precision)
    _refuse_pos_weight(pos_weight)
    if accumulate_grad_batches != 1:
        raise UserError(
            f"accumulate_grad_batches={accumulate_grad_batches} must be 1: it would add noise to "
            "parts of a logical step. Memory is set by performance.physical_batch_size, and the "
            "logical batch by privacy.expected_batch_size."
        )
    if sampler is not None:
        raise UserError(
            f"sampler={type(sampler).__name__} is refused: epsilon is accounted for Poisson draws, "
            "which dpmed makes itself from a secret key. Leave the sampler out."
        )
    if num_devices != 1:
        raise UserError(
            f"num_devices={num_devices} must be 1: every process would draw the same patients and "
            "the same noise, and epsilon would be wrong."
        )


def modules_that_mix(model: nn.Module) -> list[tuple[str, str]]:
    """(name, reason) of every module in which one sample can influence another."""
    return list(_mixing(model))


def _refuse_mixing_modules(model: nn.Module) -> None:
    found = modules_that_mix(model)
    if not found:
        return
    listed = "; ".join(f"{name}: {reason}" for name, reason in found[:3])
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    raise UserError(
        f"The model cannot be trained privately: {listed}{more}. Replace it by a norm within one "
        "sample, such as torch.nn.GroupNorm (opacus.validators.ModuleValidator.fix does that for "
        "batch norms) or LayerNorm, or choose a backbone without it, such as convnext_atto."
    )


def _mixing(model: nn.Module) -> Iterator[tuple[str, str]]:
    for name, module in model.named_modules():
        kind = type(module).__name__
        # Subclasses, frozen and parameter-free ones as well, which Opacus' validator passes over.
        if isinstance(module, _BatchNorm) or _mixes_by_name(module):
            yield name or "the model", f"{kind} normalises a sample with the others of its batch"
        elif _tracks_statistics(module):
            yield name or "the model", f"{kind} stores statistics of the private images"
        elif validator := ModuleValidator.VALIDATORS.get(type(module)):
            for error in validator(module):
                yield name or "the model", f"{kind}: {str(error).split('. ')[0]}"


def _mixes_by_name(module: nn.Module) -> bool:
    kind = type(module).__name__
    return bool(_MIXES_BY_NAME.search(kind)) and not kind.startswith("Frozen")


def _tracks_statistics(module: nn.Module) -> bool:
    if type(module).__name__.startswith("Frozen"):
        return False
    buffers = dict(module.named_buffers(recurse=False))
    return any(buffers.get(name) is not None for name in _RUNNING_STATISTICS)


def _refuse_precision(precision: str) -> None:
    if precision in PRECISIONS:
        return
    allowed = f"Allowed: {', '.join(PRECISIONS)}."
    if precision.startswith(("16", "fp16", "float16")):
        raise UserError(
            f"performance.precision={precision} is refused: fp16 needs a loss scaler, which reacts "
            "to all samples at once, and its norms overflow, so that the bound on one patient's "
            f"influence fails. {allowed}"
        )
    if precision in ("bf16-true", "bf16"):
        raise UserError(
            f"performance.precision={precision} is refused: sums and noise would be rounded to 8 "
            f"bits. Use bf16-mixed, which keeps them in float32. {allowed}"
        )
    raise UserError(
        f"performance.precision={precision} is not known. {allowed}"
        f"{did_you_mean(precision, PRECISIONS)}"
    )


def _refuse_pos_weight(pos_weight: Sequence[float] | None) -> None:
    """Only plain positive numbers, as a configuration holds them, are certain to be literals."""
    if pos_weight is None:
        return
    if isinstance(pos_weight, (list, tuple)) and all(
        type(weight) in (int, float) and 0 < weight < math.inf for weight in pos_weight
    ):
        return
    raise UserError(
        f"training.pos_weight={pos_weight!r} is refused: weights counted from private labels spend "
        "budget outside the plan. Write positive numbers into the configuration, from a public "
        "source, one a label."
    )
