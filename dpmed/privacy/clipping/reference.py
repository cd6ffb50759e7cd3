"""Reference engines: Opacus' own per-sample gradients, with its Conv2d defect corrected.

They hold every row's gradient of every parameter, so they need several times the time and memory
of the one-pass engine; they exist to compare with. Units, views, clipping and the sum are the
clipper's, so that an engine never changes results beyond rounding.

As released, Opacus 1.6.0 reads Conv2d inputs as if they were contiguous (docs/clipping.md); the
correction belongs to the subclass here and leaves Opacus itself as it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.conv import compute_conv_grad_sample
from torch import Tensor, nn

from dpmed.errors import UserError
from dpmed.privacy.clipping.records import Instance, Record


class CorrectedGradSampleModule(GradSampleModule):
    """Opacus' `hooks` (or `functorch`) module whose Conv2d sampler makes its input contiguous."""

    #: None: Opacus chooses by itself, and needs no naming.
    generic_modules: tuple[str, ...] = ()

    def __init__(self, model: nn.Module, *, force_functorch: bool) -> None:
        try:
            super().__init__(model, loss_reduction="sum", force_functorch=force_functorch)
        except NotImplementedError as error:
            raise UserError(f"Opacus refuses this model: {error}") from error

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Ordinary forwards and ordinary gradients, for comparisons."""
        self.disable_hooks()
        try:
            with without_hook_warning():
                yield
        finally:
            self.enable_hooks()

    def unit_gradients(self, loss: Tensor, num_units: int) -> list[Record]:
        """Run the backward; one record a parameter, ordinary gradients dropped."""
        with without_hook_warning():
            loss.backward()
        records: list[Record] = []
        for parameter in self.parameters():
            parameter.grad = None
            if parameter.requires_grad and parameter.grad_sample is not None:
                grads_BN = parameter.grad_sample.unflatten(0, (num_units, -1)).sum(1)
                records.append(Instance(parameter, grads_BN.detach()))
                parameter.grad_sample = None
        return records


@contextmanager
def without_hook_warning() -> Iterator[None]:
    """Opacus hooks the first layer, whose input, the images, needs no gradient; torch warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        yield


def _contiguous_conv_grad_sample(
    layer: Any, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    contiguous = [activations[0].contiguous()]
    return compute_conv_grad_sample(layer, contiguous, backprops.contiguous())


CorrectedGradSampleModule.GRAD_SAMPLERS = {
    **GradSampleModule.GRAD_SAMPLERS,
    nn.Conv2d: _contiguous_conv_grad_sample,
}
