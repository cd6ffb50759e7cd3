"""The start-up proof: before the first step, clipping is checked on the real model and loss.

With synthetic inputs and the run's own model, loss and dtype: (1) isolation, in
`dpmed.privacy.isolation`; (2) exactness: the engine's norms and clipped sum must equal a loop over
single units with ordinary autograd. Parameters, buffers and random states are left as they were.
It reads no data and takes no training step.

Legend of shape suffixes: V images (views), B units, V = B · K.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpmed.errors import UserError
from dpmed.privacy.clipping.clipper import Clipper
from dpmed.privacy.isolation import IsolationTest, Losses

# Relative error allowed per parameter and norm. Rounding between a batch and a single unit stays
# well below; the defects this check is for are above 1e-2, and above 0.3 where bf16 hides less.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 5e-4, torch.bfloat16: 0.15}


@dataclass(frozen=True, kw_only=True)
class ClippingProof:
    """What was checked and how well it held, for the banner and run.json."""

    num_units: int
    worst_parameter: str
    worst_relative_error: float
    norm_relative_error: float
    seconds: float

    def sentence(self) -> str:
        """One line for the start banner."""
        return (
            f"clipping checked on {self.num_units} synthetic units in {self.seconds:.1f} s: "
            f"units isolated; worst relative error {self.worst_relative_error:.1e} "
            f"({self.worst_parameter})"
        )


def prove_clipping(
    clipper: Clipper, *, losses: Losses, inputs_V: Tensor, targets_V: Tensor
) -> ClippingProof:
    """Check isolation and exactness, or stop the run.

    Args:
        clipper: as it will train.
        losses: the run's own path from a batch to one loss an image, through `clipper.module`,
            with everything that is done to a batch on the way; also called with a single unit.
        inputs_V: synthetic inputs [V, ...], at least 3 different units, each unit's side by side.
        targets_V: synthetic targets [V, ...]; the units' targets should differ.

    Raises:
        UserError: a unit is not isolated, or the engine is off; names the module.

    Guarantee: finds every dependence between units and every error of the engine that moves a loss
    or a gradient at these inputs by more than the tolerances. It is a check at these inputs, not a
    proof for all.
    """
    start = time.perf_counter()
    views = clipper.views_per_unit
    assert len(inputs_V) % views == 0, (len(inputs_V), views)
    assert len(inputs_V) >= 3 * views, "isolation needs at least three units"
    parameters = {
        name.removeprefix("_module."): p
        for name, p in clipper.module.named_parameters()
        if p.requires_grad
    }
    with _borrowed(clipper.module):
        with clipper.module.plain():
            _check_shape(losses(inputs_V, targets_V), len(inputs_V))
            IsolationTest(
                model=clipper.module.get_submodule("_module"),
                losses=losses,
                parameters=parameters,
                inputs_V=inputs_V,
                targets_V=targets_V,
                views=views,
            ).run()
        worst, error, norm_error = _exactness(clipper, losses, parameters, inputs_V, targets_V)
    return ClippingProof(
        num_units=len(inputs_V) // views,
        worst_parameter=worst,
        worst_relative_error=error,
        norm_relative_error=norm_error,
        seconds=time.perf_counter() - start,
    )


def synthetic_batch(
    *,
    num_units: int,
    views_per_unit: int,
    image_shape: tuple[int, ...],
    num_labels: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Random images [V, *image_shape] in [0, 1] and labels [V, num_labels] in {0, 1}, seeded.

    The first unit's labels are 0 and the second's 1, so that units differ in every label.
    """
    generator = torch.Generator().manual_seed(0)
    num_images = num_units * views_per_unit
    inputs_V = torch.rand(num_images, *image_shape, generator=generator)
    targets_V = torch.randint(0, 2, (num_images, num_labels), generator=generator)
    targets_V[:views_per_unit] = 0
    targets_V[views_per_unit : 2 * views_per_unit] = 1
    return inputs_V.to(device, dtype), targets_V.to(device, dtype)


def _check_shape(losses_V: Tensor, num_images: int) -> None:
    if losses_V.shape != (num_images,):
        raise UserError(
            f"The loss has shape {tuple(losses_V.shape)} for {num_images} images; clipping needs "
            "one loss an image. Use reduction='none' and average over labels only."
        )


def _exactness(
    clipper: Clipper,
    losses: Losses,
    parameters: dict[str, nn.Parameter],
    inputs_V: Tensor,
    targets_V: Tensor,
) -> tuple[str, float, float]:
    """The engine against the loop: worst parameter, its relative error, that of the norms."""
    expected, norms_B = _loop(clipper, losses, parameters, inputs_V, targets_V)
    torch.manual_seed(0)
    losses_V = losses(inputs_V, targets_V)
    weights_V = torch.full_like(losses_V.detach(), 1.0 / clipper.views_per_unit)
    stats = clipper.backward(losses_V, weights_V)
    total = torch.stack([grad.norm() for grad in expected.values()]).norm()
    errors = {}
    for name, grad in expected.items():
        summed_grad: Tensor = parameters[name].summed_grad  # type: ignore[attr-defined, union-attr]
        # The floor is for gradients that are zero but for rounding.
        size = grad.norm() + 1e-3 * total
        errors[name] = float((summed_grad.double() - grad).norm() / size)
    worst = max(errors, key=lambda name: errors[name])
    norm_error = float(((stats.norms_B - norms_B).abs() / norms_B).max())
    tolerance = TOLERANCES[_computing_dtype(clipper, parameters)]
    if not max(errors[worst], norm_error) <= tolerance:
        _refuse(clipper, worst, errors[worst], norm_error, tolerance)
    return worst, errors[worst], norm_error


def _loop(
    clipper: Clipper,
    losses: Losses,
    parameters: dict[str, nn.Parameter],
    inputs_V: Tensor,
    targets_V: Tensor,
) -> tuple[dict[str, Tensor], Tensor]:
    """Clipped sums and norms, one unit at a time, with ordinary forwards and autograd."""
    views, tensors = clipper.views_per_unit, list(parameters.values())
    sums = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}
    norms = []
    for start in range(0, len(inputs_V), views):
        rows = slice(start, start + views)
        torch.manual_seed(0)
        with clipper.module.plain():
            loss = losses(inputs_V[rows], targets_V[rows]).sum() / views
            grads = torch.autograd.grad(loss, tensors, materialize_grads=True)
        norm = torch.stack([g.double().square().sum() for g in grads]).sum().sqrt()
        norms.append(norm)
        for name, grad in zip(parameters, grads, strict=True):
            sums[name] += clipper.coefficients.of_norms(norm) * grad.double()
    return sums, torch.stack(norms)


def _refuse(
    clipper: Clipper, parameter: str, error: float, norm_error: float, tolerance: float
) -> None:
    name = parameter.rpartition(".")[0]
    module = clipper.module.get_submodule(f"_module.{name}" if name else "_module")
    raise UserError(
        f"Start-up check failed: in module {name!r} ({type(module).__name__}) the clipped sum of "
        f"{parameter} differs from a loop over single units by {error:.1e} (relative), and the "
        f"worst norm by {norm_error:.1e}; allowed {tolerance:.0e}. Either the model or loss "
        "treats a single unit differently from one in a batch, or the engine has no exact rule "
        "for this module: try performance.clipping_engine=opacus_functorch."
    )


def _computing_dtype(clipper: Clipper, parameters: dict[str, nn.Parameter]) -> torch.dtype:
    if clipper.dtype == torch.bfloat16:
        return torch.bfloat16
    return next(iter(parameters.values())).dtype


@contextmanager
def _borrowed(module: nn.Module) -> Iterator[None]:
    """Afterwards: random states, parameters, buffers and sums as before. Meanwhile: no dropout.

    Parameters that are all but zero (layer scale at 1e-6, a zero head) would hide every error
    behind them, so they are randomised.
    """
    parameters = list(module.parameters())
    saved = [(tensor, tensor.detach().clone()) for tensor in (*parameters, *module.buffers())]
    stochastic = [layer for layer in module.modules() if layer.training and _is_stochastic(layer)]
    devices = {p.device.index for p in parameters if p.is_cuda}
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            for parameter in parameters:
                if float(parameter.detach().abs().max()) < 1e-3:
                    nn.init.uniform_(parameter, 0.05, 0.2)
            for layer in stochastic:
                layer.training = False
            yield
    finally:
        for layer in stochastic:
            layer.training = True
        with torch.no_grad():
            for tensor, value in saved:
                tensor.copy_(value)
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.summed_grad = None  # type: ignore[attr-defined]


def _is_stochastic(module: nn.Module) -> bool:
    rates = (getattr(module, name, None) for name in ("p", "drop_prob", "dropout"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)
