"""A recording model as a function of tensors, for torch.compile to trace.

While the backward of such a function is traced, the layers' own rules run once, on tensors that
stand for the graph's inputs. Two steps are put around the model: the last of the forward, which is
the first of the backward, opens the tape; the first of the forward, which is the last of the
backward because every recording layer takes its result as `anchor`, takes the records off the tape
and returns them as the gradients of the function's probes.

It chooses no rule and computes nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from dpmed.privacy.clipping.records import Record
from dpmed.privacy.clipping.tape import Tape


def tensors_of(record: Record) -> list[Tensor]:
    """What of a record depends on the batch."""
    return [getattr(record, name) for name in record.TENSORS]


class TracedModel:
    """A model's forward whose parameters, buffers and probes are inputs.

    Arguments: the `model`, whose layers record on `tape`; `num_units` in a batch.
    """

    def __init__(self, model: nn.Module, tape: Tape, num_units: int) -> None:
        self.model, self.tape, self.num_units = model, tape, num_units
        #: The dictionary of a module, and the name in it, of every parameter and buffer.
        self._places = [
            (places, name)
            for module in model.modules()
            for places in (module._parameters, module._buffers)
            for name, tensor in places.items()
            if tensor is not None
        ]
        self._borrowed = ExitStack()

    def tensors(self) -> list[Any]:
        """The parameters and buffers as they are now, in the order of the inputs."""
        return [places[name] for places, name in self._places]

    def as_graph(self, *, num_probes: int) -> fx.GraphModule:
        """From images, tensors and probes to the output: one call that is traced as it runs."""

        def traced(images: Tensor, *inputs: Tensor) -> Tensor:
            return self._forward(images, inputs[: len(self._places)], inputs[len(self._places) :])

        torch.compiler.allow_in_graph(traced)
        graph = fx.Graph()
        num_inputs = 1 + len(self._places) + num_probes
        inputs = tuple(graph.placeholder(f"input{index}") for index in range(num_inputs))
        graph.output(graph.call_function(traced, inputs))
        return fx.GraphModule({}, graph)

    def _forward(
        self, images: Tensor, tensors: Sequence[Tensor], probes: Sequence[Tensor]
    ) -> Tensor:
        anchor = _TakeRecords.apply(self, *probes)
        with self._holding(tensors, anchor):
            output = self.model.forward(images)
        return _OpenTape.apply(output, anchor, self, tensors)

    @contextmanager
    def _holding(self, tensors: Sequence[Tensor], anchor: Tensor) -> Iterator[None]:
        """The model holds these tensors, as the rules ask it for them in the backward too."""
        own, own_anchor = self.tensors(), self.tape.anchor
        self._put(tensors)
        self.tape.anchor = anchor
        try:
            yield
        finally:
            self._put(own)
            self.tape.anchor = own_anchor

    def _put(self, tensors: Sequence[Any]) -> None:
        for (places, name), tensor in zip(self._places, tensors, strict=True):
            places[name] = tensor

    def open(self, tensors: Sequence[Tensor], anchor: Tensor) -> None:
        """At the start of the traced backward; in it nothing is autocast, as in the clipper's."""
        self._borrowed.enter_context(self._holding(tensors, anchor))
        self._borrowed.enter_context(torch.autocast(anchor.device.type, enabled=False))
        self._borrowed.enter_context(self.tape.recording(self.num_units))

    def give_back(self) -> None:
        """The model's own tensors, and a closed tape."""
        self._borrowed.close()


class _OpenTape(torch.autograd.Function):
    """The output as it is; its backward comes before that of any layer."""

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, anchor: Tensor, traced: TracedModel, tensors: Sequence[Tensor]
    ) -> Tensor:
        ctx.anchor, ctx.traced, ctx.tensors = anchor, traced, tensors
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        ctx.traced.open(ctx.tensors, ctx.anchor)
        return grads, None, None, None


class _TakeRecords(torch.autograd.Function):
    """An anchor for the layers; its backward comes after that of every layer."""

    @staticmethod
    def forward(ctx: Any, traced: TracedModel, *probes: Tensor) -> Tensor:
        ctx.traced = traced
        return torch.zeros(0, device=probes[0].device)

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        records = ctx.traced.tape.take()
        tensors = [tensor for record in records for tensor in tensors_of(record)]
        ctx.traced.give_back()
        return None, *tensors
