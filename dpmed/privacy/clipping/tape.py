"""What the layers write down during one backward pass.

Each layer's rule adds one record per parameter, or per weight-and-bias pair. After the backward
the clipper takes the records and asks them for norms and sums. The tape decides nothing about
clipping. Legend of shape suffixes: R rows of the batch, a multiple of the B units; T positions,
D inputs, P outputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dpmed.errors import UserError
from dpmed.privacy.clipping.records import (
    SMALL_NUMEL,
    Bundle,
    Gram,
    Instance,
    Layout,
    Record,
    gram_is_cheaper,
)


class Tape:
    """The records of one backward pass.

    A deep copy is empty and closed, so that an averaged copy of a model never writes here.
    """

    def __init__(self, parameter_names: dict[int, str] | None = None) -> None:
        #: An input of every recording Function, so that backward reaches those whose layer input
        #: needs no gradient. The parameters themselves stay out of the graph.
        self.anchor = torch.zeros(0, requires_grad=True)
        #: While paused, every layer runs its own forward and ordinary autograd applies.
        self.is_paused = False
        self._num_units = 0
        self._names = parameter_names or {}
        self._records: list[Record] = []

    def __deepcopy__(self, memo: dict[int, object]) -> Tape:
        return Tape()

    @contextmanager
    def recording(self, num_units: int) -> Iterator[None]:
        """Open the tape for one backward pass over a batch of `num_units` units."""
        self._num_units = num_units
        self._records = []
        try:
            yield
        finally:
            self._num_units = 0
            self._records = []

    @property
    def is_recording(self) -> bool:
        """Whether a backward pass of the clipper is under way."""
        return self._num_units > 0

    def num_units(self, num_rows: int, parameter: nn.Parameter) -> int:
        """Among how many units a layer's rows are shared out, checked.

        Raises:
            RuntimeError: the backward is not the clipper's.
            UserError: rows and units do not fit.
        """
        if not self.is_recording:
            raise RuntimeError(
                f"The gradient of {self.name_of(parameter)} was asked for outside the clipper. "
                "Call clipper.backward(losses_V, weights_V) instead of loss.backward()."
            )
        if num_rows % self._num_units:
            raise UserError(
                f"{self.name_of(parameter)} saw {num_rows} rows for {self._num_units} units. The "
                "first dimension of every layer's input must be a multiple of the batch, with a "
                "unit's rows side by side."
            )
        return self._num_units

    def name_of(self, parameter: nn.Parameter) -> str:
        """The parameter's name in the model, for messages."""
        return self._names.get(id(parameter), "a parameter of a copied model")

    def add_instance(self, parameter: nn.Parameter, grads_RN: Tensor) -> None:
        """Record gradients [R, *parameter.shape] of rows; a unit's rows are summed here."""
        num_units = self.num_units(len(grads_RN), parameter)
        if len(grads_RN) != num_units:
            grads_RN = grads_RN.unflatten(0, (num_units, -1)).sum(1)
        instance = Instance(parameter, grads_RN.detach())
        if parameter.numel() > SMALL_NUMEL:
            # Read once more while it is in the cache.
            _ = instance.squares_B
        self._records.append(instance)

    def add_product(
        self,
        weight: nn.Parameter | None,
        bias: nn.Parameter | None,
        inputs_RTD: Tensor,
        grads_RTP: Tensor,
        layout: Layout,
    ) -> None:
        """Record a layer whose gradient is gᵀa, in the cheaper form; None where frozen.

        `layout` turns gradients [..., P, D] into [..., *weight.shape].
        """
        if weight is None:
            if bias is not None:
                self.add_instance(bias, grads_RTP.sum(1))
            return
        inputs_BTD, grads_BTP = self._by_unit(inputs_RTD, weight), self._by_unit(grads_RTP, weight)
        _, num_positions, num_inputs = inputs_BTD.shape
        if self.prefers_gram(num_positions, num_inputs, grads_BTP.shape[2], grads_BTP):
            self._records.append(Gram(weight, bias, inputs_BTD, grads_BTP, layout))
            return
        self.add_instance(weight, layout(torch.bmm(grads_BTP.transpose(1, 2), inputs_BTD)))
        if bias is not None:
            self.add_instance(bias, grads_BTP.sum(1))

    def add_gram(
        self,
        weight: nn.Parameter,
        bias: nn.Parameter | None,
        inputs_RTD: Tensor,
        grads_RTP: Tensor,
        layout: Layout,
    ) -> None:
        """As `add_product`, where the form is known."""
        inputs_BTD, grads_BTP = self._by_unit(inputs_RTD, weight), self._by_unit(grads_RTP, weight)
        self._records.append(Gram(weight, bias, inputs_BTD, grads_BTP, layout))

    def add_record(self, record: Record) -> None:
        """Put a record of a compiled backward on the tape, as it is."""
        self.num_units(len(record.squares_B), record.parameters[0])
        self._records.append(record)

    def _by_unit(self, rows_RTD: Tensor, parameter: nn.Parameter) -> Tensor:
        """(R, T, D) as (B, R/B·T, D)."""
        num_units = self.num_units(len(rows_RTD), parameter)
        return rows_RTD.reshape(num_units, -1, rows_RTD.shape[-1])

    def prefers_gram(
        self, num_positions: int, num_inputs: int, num_outputs: int, like: Tensor
    ) -> bool:
        """Whether a layer of these sizes, per unit, is recorded as Gram."""
        return gram_is_cheaper(
            num_positions=num_positions,
            num_inputs=num_inputs,
            num_outputs=num_outputs,
            dtype=like.dtype,
            device=like.device.type,
        )

    def take(self) -> list[Record]:
        """The records; a parameter that was used more than once has them added up."""
        records, self._records = self._records, []
        uses = Counter(id(p) for record in records for p in record.parameters)
        totals: dict[int, Instance] = {}
        taken: list[Record] = []
        for record in records:
            if any(uses[id(p)] > 1 for p in record.parameters):
                for instance in record.instances():
                    _add_to(totals, instance)
            else:
                taken.append(record)
        return _bundle_small([*taken, *totals.values()])


def _add_to(totals: dict[int, Instance], instance: Instance) -> None:
    key = id(instance.parameter)
    if key in totals:
        instance = Instance(instance.parameter, totals[key].grads_BN + instance.grads_BN)
    totals[key] = instance


def _bundle_small(records: list[Record]) -> list[Record]:
    small: dict[torch.dtype, list[Instance]] = {}
    others: list[Record] = []
    for record in records:
        if isinstance(record, Instance) and record.parameter.numel() <= SMALL_NUMEL:
            small.setdefault(record.grads_BN.dtype, []).append(record)
        else:
            others.append(record)
    return others + [Bundle(instances) for instances in small.values()]
