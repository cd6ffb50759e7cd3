"""The one-pass engine: forward through recording layers, one backward, then norms and the sum.

Opacus' `AbstractGradSampleModule` is the base class, so that its optimizers and engine accept the
module; its per-sample attributes stay empty. The name of the mode never contains "ghost", because
Opacus wraps the criterion of such modes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from opacus.grad_sample.gsm_base import AbstractGradSampleModule
from torch import Tensor, nn

from dpmed.errors import UserError
from dpmed.privacy.clipping.catalogue import choose_rules
from dpmed.privacy.clipping.compiled import CompiledForward
from dpmed.privacy.clipping.generic import RecordingModule
from dpmed.privacy.clipping.layer import make_plain, make_recording
from dpmed.privacy.clipping.records import Record
from dpmed.privacy.clipping.tape import Tape

_PREFIX = "_module."


class OnePassModule(AbstractGradSampleModule):
    """The user's model, recording; parameter names and state_dict are the model's own.

    Arguments: `model`, changed in place until `to_standard_module()`; `views_per_unit` rows of a
    batch make a unit; `compile_backend` of torch.compile, None for no compilation.
    """

    def __init__(
        self, model: nn.Module, *, views_per_unit: int, compile_backend: str | None
    ) -> None:
        super().__init__(model, loss_reduction="sum")
        names = {id(p): name for name, p in model.named_parameters()}
        self.tape = Tape(names)
        self.generic_modules: list[str] = []
        for module in model.modules():
            # A second clipper on one model takes over from the first.
            make_plain(module)
        for name, module, rule in list(choose_rules(model)):
            make_recording(module, rule, self.tape)
            if rule is RecordingModule:
                self.generic_modules.append(name or type(module).__name__)
        self._compiled = self._compile(views_per_unit, compile_backend) if compile_backend else None
        self._guards = [
            p.register_post_accumulate_grad_hook(_refuse_grad(name, self.tape))
            for name, p in model.named_parameters()
            if p.requires_grad
        ]
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """The model's parameters under the model's names."""
        for name, parameter in super().named_parameters(*args, **kwargs):
            yield name.replace(_PREFIX, "", 1), parameter

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output, recorded while gradients are enabled."""
        if self._compiled is None or self.tape.is_paused or not torch.is_grad_enabled():
            return self._module(*args, **kwargs)
        return self._compiled(*args, **kwargs)

    def _compile(self, views_per_unit: int, backend: str) -> CompiledForward:
        if self.generic_modules:
            raise UserError(
                "performance.compile=true has no form for modules on the generic rule: "
                f"{', '.join(self.generic_modules)}. Set performance.compile=false."
            )
        return CompiledForward(
            self._module, self.tape, views_per_unit=views_per_unit, backend=backend
        )

    def unit_gradients(self, loss: Tensor, num_units: int) -> list[Record]:
        """Run the backward of the weighted loss; one record a parameter, or for several."""
        with self.tape.recording(num_units), _grads_set_aside(self._module):
            loss.backward()
            return self.tape.take()

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Ordinary forwards and ordinary gradients, for comparisons."""
        self.tape.is_paused = True
        try:
            yield
        finally:
            self.tape.is_paused = False

    def remove_hooks(self) -> None:
        """Give every layer its own forward back."""
        self._compiled = None
        for guard in self._guards:
            guard.remove()
        for module in self._module.modules():
            make_plain(module)


@contextmanager
def _grads_set_aside(model: nn.Module) -> Iterator[None]:
    """Within, any `p.grad` comes from this backward; afterwards the former ones are back."""
    former = [(p, p.grad) for p in model.parameters() if p.grad is not None]
    for parameter, _ in former:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, grad in former:
            parameter.grad = grad


def _refuse_grad(name: str, tape: Tape) -> Any:
    def refuse(parameter: Tensor) -> None:
        # A compiled backward calls here for every parameter, without a gradient.
        if tape.is_recording and parameter.grad is not None:
            parameter.grad = None
            raise RuntimeError(
                f"{name} is used outside the forward of the module that owns it, so its per-unit "
                "gradient is unknown. Use performance.clipping_engine=opacus_functorch, "
                "or freeze it."
            )

    return refuse


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for key in [key for key in state if key.startswith(prefix + _PREFIX)]:
        state[prefix + key[len(prefix) + len(_PREFIX) :]] = state.pop(key)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + _PREFIX + key[len(prefix) :]] = state.pop(key)
