"""The public face of per-unit clipping: `make_clipper` and what it returns.

Between the loss and the optimizer: the clipper turns per-image losses into the sum of clipped
per-unit gradients, in every parameter's `summed_grad`. It never touches `p.grad`, adds no noise
and does not know the plan; the plan and the optimizer ask it for its sensitivity.

Example:
    >>> clipper = make_clipper(model, engine="onepass", rule="flat", max_grad_norm=1.0,
    ...                        views_per_unit=1)
    >>> optimizer = SecretNoiseOptimizer(torch.optim.AdamW(model.parameters(), lr=1e-3),
    ...     noise_multiplier=1.1, max_grad_norm=clipper.sensitivity, expected_batch_size=64,
    ...     noise=SecretStream.from_os())
    >>> for batch in sampler.physical_batches(step):               # one logical step
    ...     logits = clipper.module(images[batch.rows_BK.reshape(-1)])
    ...     losses_V = bce(logits, labels, reduction="none").mean(1)
    ...     clipper.backward(losses_V, batch.weights_BK.reshape(-1))
    >>> optimizer.step()                                           # noise, scaling, update
    >>> optimizer.zero_grad()

Legend of shape suffixes: V images of the batch (views), B units, V = B · K.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dpmed.errors import UserError, did_you_mean
from dpmed.privacy.clipping.coefficients import SLACK_OF_DTYPE, ClippingRule, Coefficients
from dpmed.privacy.clipping.onepass import OnePassModule
from dpmed.privacy.clipping.records import Record
from dpmed.privacy.clipping.reference import CorrectedGradSampleModule

ClippingEngine = Literal["onepass", "opacus_hooks", "opacus_functorch"]
CLIPPING_ENGINES: tuple[str, ...] = ("onepass", "opacus_hooks", "opacus_functorch")


@dataclass(frozen=True, kw_only=True)
class ClipStats:
    """Side outputs of one physical batch. Not private: never logged unless asked for.

    `norms_B` are the units' gradient norms before clipping (0 for padding), float64;
    `num_nonfinite` units had a norm that is not finite and contributed nothing.
    """

    norms_B: Tensor
    num_nonfinite: int


class Clipper:
    """Sums clipped per-unit gradients of a model; made by `make_clipper`.

    Guarantee: each unit moves the sum in `summed_grad` by at most `sensitivity` in Euclidean norm
    over all trainable parameters together, provided that a unit's losses depend on its own images
    only, which `dpmed.privacy.startup` checks.
    """

    def __init__(
        self,
        module: OnePassModule | CorrectedGradSampleModule,
        *,
        coefficients: Coefficients,
        views_per_unit: int,
        dtype: torch.dtype,
        max_units: int | None,
    ) -> None:
        #: The model to call for outputs; Opacus' `AbstractGradSampleModule`.
        self.module = module
        self.coefficients = coefficients
        self.views_per_unit = views_per_unit
        #: In which the model computes; bfloat16 under autocast.
        self.dtype = dtype
        self.max_units = max_units
        #: Names of modules that the generic torch.func rule serves; for the start banner.
        self.generic_modules = module.generic_modules
        self._parameters: list[Any] = [p for p in module.parameters() if p.requires_grad]
        self._made_for = self._trained()
        for parameter in self._parameters:
            parameter.summed_grad = None

    @property
    def sensitivity(self) -> float:
        """How far one unit can move the sum; what plan and noise must use."""
        return self.coefficients.sensitivity

    @property
    def slack(self) -> float:
        """Part of the clip norm that is held back for rounding; already inside `sensitivity`."""
        return self.coefficients.slack

    def backward(self, losses_V: Tensor, weights_V: Tensor) -> ClipStats:
        """Add Σ_b clip(Σ_k w_bk ∇loss_bk) of one physical batch to every `summed_grad`.

        Args:
            losses_V: one loss an image, from `module`'s output, a unit's K images side by side.
            weights_V: 1/k for a unit's k images, 0 for padding; not negative.

        Raises:
            UserError: a loss that is one number, a batch that is not whole units or too large, or
                a model whose layers do not keep a unit's rows together.
            RuntimeError: the sums of the last step were not cleared, or the parameters are others
                than those that the clipper was made for.
        """
        num_units = self._checked_num_units(losses_V, weights_V)
        if num_units == 0:
            self._fill_missing_sums()
            return ClipStats(norms_B=torch.zeros(0, dtype=torch.float64), num_nonfinite=0)
        with torch.autocast(losses_V.device.type, enabled=False):
            loss = (losses_V * weights_V.to(losses_V)).sum()
            return self._add_clipped(self.module.unit_gradients(loss, num_units), num_units)

    @torch.no_grad()
    def _add_clipped(self, records: list[Record], num_units: int) -> ClipStats:
        squares_B = torch.zeros(num_units, dtype=torch.float64, device=self._parameters[0].device)
        for record in records:
            squares_B += record.squares_B
        norms_B = squares_B.sqrt()
        keep_B = torch.isfinite(norms_B)
        num_nonfinite = num_units - int(keep_B.sum())
        factors_B = self.coefficients.of_norms(norms_B)
        while records:
            # Popped, so that each record's memory is free before the next sum is formed.
            self._add_record(records.pop(), factors_B, keep_B if num_nonfinite else None)
        self._fill_missing_sums()
        return ClipStats(norms_B=norms_B, num_nonfinite=num_nonfinite)

    def _add_record(self, record: Record, factors_B: Tensor, keep_B: Tensor | None) -> None:
        if keep_B is not None:
            record.drop_units(keep_B)
        for parameter, total in record.weighted_sums(factors_B):
            destination: Any = parameter
            if destination.summed_grad is None:
                destination.summed_grad = total.to(parameter.dtype)
            else:
                destination.summed_grad.add_(total)

    def _fill_missing_sums(self) -> None:
        for parameter in self._parameters:
            if parameter.summed_grad is None:
                parameter.summed_grad = torch.zeros_like(parameter)

    def _checked_num_units(self, losses_V: Tensor, weights_V: Tensor) -> int:
        _check_losses(losses_V, weights_V, self.views_per_unit)
        num_units = len(losses_V) // self.views_per_unit
        if self.max_units is not None and num_units > self.max_units:
            raise UserError(
                f"A batch of {num_units} units came; performance.physical_batch_size allows at "
                f"most {self.max_units}. Split the batch, or raise the setting."
            )
        if any(hasattr(p.summed_grad, "_processed") for p in self._parameters):
            raise RuntimeError(
                "The summed gradients were used by an optimizer step already. Call "
                "optimizer.zero_grad() after each step, before the next backward."
            )
        if self._trained() != self._made_for:
            raise RuntimeError(
                "Parameters were frozen, unfrozen, replaced or converted after make_clipper. Do "
                "that first, then make the clipper."
            )
        return num_units

    def _trained(self) -> list[tuple[int, torch.dtype]]:
        """Which parameters are trained, and in which dtype, on which the slack depends."""
        return [(id(p), p.dtype) for p in self.module.parameters() if p.requires_grad]


def make_clipper(
    model: nn.Module,
    *,
    engine: ClippingEngine,
    rule: ClippingRule,
    max_grad_norm: float,
    views_per_unit: int,
    dtype: torch.dtype | None = None,
    max_units: int | None = None,
    compile_backend: str | None = None,
) -> Clipper:
    """Prepare a model for per-unit clipping; what is trainable must be chosen before.

    Args:
        model: any module; layers are changed in place, parameters and their names are not.
        engine: `onepass`, or one of the slower references through Opacus; the same results.
        rule: `flat` (min(1, C/n)) or `automatic` (C/(n + 0.01)).
        max_grad_norm: C, the bound on one unit's contribution.
        views_per_unit: K, how many consecutive rows of a batch belong to one unit.
        dtype: in which the model computes: torch.bfloat16 under autocast; default, the model's.
        max_units: the physical batch size, where batches above it should be refused.
        compile_backend: of torch.compile, `inductor` as a rule; None for no compilation.

    Raises:
        UserError: an unknown setting, float16, mixed devices, or a module that mixes the batch.

    Guarantee: see `Clipper`.
    """
    if engine not in CLIPPING_ENGINES:
        raise UserError(
            f"performance.clipping_engine={engine!r} is not known; allowed: "
            f"{', '.join(CLIPPING_ENGINES)}.{did_you_mean(engine, CLIPPING_ENGINES)}"
        )
    if views_per_unit < 1:
        raise UserError(f"privacy.views_per_unit={views_per_unit} must be at least 1.")
    model_dtype = _checked_dtype(model)
    dtype = dtype or model_dtype
    coefficients = Coefficients(rule=rule, max_grad_norm=max_grad_norm, slack=_slack_of(dtype))
    module: OnePassModule | CorrectedGradSampleModule
    if engine == "onepass":
        module = OnePassModule(
            model, views_per_unit=views_per_unit, compile_backend=compile_backend
        )
    elif compile_backend:
        raise UserError(
            f"performance.compile=true has no form for performance.clipping_engine={engine}; use "
            "performance.clipping_engine=onepass, or performance.compile=false."
        )
    else:
        module = CorrectedGradSampleModule(model, force_functorch=engine == "opacus_functorch")
    return Clipper(
        module,
        coefficients=coefficients,
        views_per_unit=views_per_unit,
        dtype=dtype,
        max_units=max_units,
    )


def _checked_dtype(model: nn.Module) -> torch.dtype:
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        raise UserError("The model has no trainable parameter: nothing would be learnt.")
    first_name, first = trainable[0]
    for name, parameter in trainable:
        if parameter.device != first.device:
            raise UserError(
                f"{name} is on {parameter.device}, {first_name} on {first.device}: put the whole "
                "model on one device."
            )
    return max((parameter.dtype for _, parameter in trainable), key=_slack_of)


def _slack_of(dtype: torch.dtype) -> float:
    if dtype not in SLACK_OF_DTYPE:
        raise UserError(
            f"{dtype} is not supported for private training: its range makes norms overflow. Use "
            "float32, or bf16 autocast (performance.precision=bf16-mixed)."
        )
    return SLACK_OF_DTYPE[dtype]


def _check_losses(losses_V: Tensor, weights_V: Tensor, views_per_unit: int) -> None:
    if losses_V.dim() != 1:
        raise UserError(
            f"The loss has shape {tuple(losses_V.shape)}; clipping needs one loss an image, "
            "shape [images]. Use reduction='none' and average over labels only."
        )
    if losses_V.shape != weights_V.shape or len(losses_V) % views_per_unit:
        raise UserError(
            f"{len(losses_V)} losses and {len(weights_V)} weights do not make whole units of "
            f"privacy.views_per_unit={views_per_unit} images."
        )
