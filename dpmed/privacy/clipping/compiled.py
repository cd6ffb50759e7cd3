"""The one-pass engine's forward and backward as graphs of torch.compile.

A recording layer's backward writes to the tape, which a compiled graph cannot do: it has inputs and
outputs only. Here the records leave the graph as gradients. For every tensor of every record there
is a zero input of its shape, a probe; the last step of the traced backward takes the records off
the tape and returns them as the probes' gradients (`dpmed.privacy.clipping.tracing`). When the
compiled backward runs, those gradients become records again on the clipper's tape. The rules, the
records and the clipper are the same as without compilation.

Shapes are static: a graph is made for each kind of batch, and physical batches are padded, so there
is one. Nothing here knows about losses or clipping.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._subclasses.fake_tensor import FakeTensorMode

from dpmed.errors import UserError
from dpmed.privacy.clipping.records import Record
from dpmed.privacy.clipping.tape import Tape
from dpmed.privacy.clipping.tracing import TracedModel, tensors_of

logger = logging.getLogger(__name__)

# Random numbers are drawn as without compilation, so that dropout and drop_path with one seed drop
# the same.
BACKEND_OPTIONS: dict[str, dict[str, Any]] = {"inductor": {"fallback_random": True}}

_SETTING_TYPES = {bool, int, float, str}


class CompiledForward:
    """A recording model's forward, compiled; its backward fills the model's tape.

    Args:
        model: its layers record on `tape`.
        tape: the clipper's.
        views_per_unit: how many consecutive rows of a batch belong to one unit.
        backend: of torch.compile.
    """

    def __init__(self, model: nn.Module, tape: Tape, *, views_per_unit: int, backend: str) -> None:
        self.model, self.tape = model, tape
        self.views_per_unit, self.backend = views_per_unit, backend
        self._graphs: dict[Any, _Graph] = {}

    def __call__(self, images_V: Tensor) -> Tensor:
        """The model's output, a graph for each kind of batch.

        Raises:
            UserError: the batch is not whole units, or the model cannot be compiled.
        """
        if not len(images_V):
            return self.model(images_V)
        if len(images_V) % self.views_per_unit:
            raise UserError(
                f"A batch of {len(images_V)} images does not make whole units of "
                f"privacy.views_per_unit={self.views_per_unit} images."
            )
        kind = self._kind(images_V)
        if kind not in self._graphs:
            shape = " x ".join(map(str, images_V.shape))
            logger.info("compiling the model for a batch of %s; this takes a while", shape)
            self._graphs[kind] = _Graph(
                self.model, self.tape, images_V, len(images_V) // self.views_per_unit, self.backend
            )
        return self._graphs[kind](images_V)

    def _kind(self, images_V: Tensor) -> tuple[Any, ...]:
        """All that a graph takes for granted; torch.compile does not look inside the model."""
        device = images_V.device.type
        autocasts = torch.is_autocast_enabled(device)
        return (
            images_V.shape,
            images_V.stride(),
            images_V.dtype,
            images_V.device,
            torch.get_autocast_dtype(device) if autocasts else None,
            tuple(parameter.requires_grad for parameter in self.model.parameters()),
            tuple(_state_of(module) for module in self.model.modules()),
        )


def _state_of(module: nn.Module) -> tuple[Any, ...]:
    """The module, and what its forward may read beside tensors: its mode and rates, its hooks."""
    settings = [value for value in vars(module).values() if type(value) in _SETTING_TYPES]
    return module, *settings, len(module._forward_hooks), len(module._forward_pre_hooks)


class _Graph:
    """Forward and backward for one kind of batch."""

    def __init__(
        self, model: nn.Module, tape: Tape, images_V: Tensor, num_units: int, backend: str
    ) -> None:
        self.tape, self.backend = tape, backend
        self.templates = _dry_run(model, tape, images_V, num_units)
        self.traced = TracedModel(model, tape, num_units)
        self.compiled = torch.compile(
            self.traced.as_graph(num_probes=sum(len(tensors_of(r)) for r in self.templates)),
            backend=backend,
            fullgraph=True,
            dynamic=False,
            options=BACKEND_OPTIONS.get(backend),
        )

    def __call__(self, images_V: Tensor) -> Tensor:
        probes = _Probes.apply(self.tape.anchor, self.templates, self.tape)
        try:
            return self.compiled(images_V, *self.traced.tensors(), *probes)
        except TorchDynamoException as error:
            raise _explained(error, self.backend) from error
        finally:
            # Where tracing broke off half-way.
            self.traced.give_back()


class _Probes(torch.autograd.Function):
    """Zeros of the shapes of the records' tensors; their gradients are put on the tape."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, templates: Sequence[Record], tape: Tape
    ) -> tuple[Tensor, ...]:
        ctx.templates, ctx.tape = templates, tape
        return tuple(
            torch.zeros((), dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)
            for record in templates
            for tensor in tensors_of(record)
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None]:
        remaining = iter(grads)
        for template in ctx.templates:
            record = copy.copy(template)
            for name in record.TENSORS:
                setattr(record, name, next(remaining))
            ctx.tape.add_record(record)
        return None, None, None


def _dry_run(model: nn.Module, tape: Tape, images_V: Tensor, num_units: int) -> list[Record]:
    """The records of one backward pass, their tensors without memory or values."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with (
        torch.random.fork_rng(devices=[]),
        fake,
        torch.autograd.set_multithreading_enabled(False),
    ):
        output = model.forward(fake.from_tensor(images_V))
        with torch.autocast(images_V.device.type, enabled=False), tape.recording(num_units):
            output.sum().backward()
            return [record for record in tape.take() if tensors_of(record)]


def _explained(error: TorchDynamoException, backend: str) -> UserError:
    inner = getattr(error, "inner_exception", error)
    if isinstance(inner, UserError):
        return inner
    reason = str(inner).strip().partition("\n")[0]
    return UserError(
        f"performance.compile=true: torch.compile ({backend}) could not compile this model: "
        f"{type(inner).__name__}: {reason}\nOn a CPU it needs a C++ compiler such as g++, and "
        "Python's headers. Set performance.compile=false to train without."
    )
