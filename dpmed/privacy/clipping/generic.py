"""The rule for any other module with parameters: torch.func over single rows, no second forward.

The module, with everything inside it, runs under vmap with one copy of its parameters a row;
autograd then delivers one gradient a copy, which is what is wanted. Memory grows by rows times
parameters and matrix products become batched: slower than a rule made for a layer, and named in
the start banner for that reason.

Legend: R rows.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from dpmed.errors import UserError
from dpmed.privacy.clipping.layer import RecordingLayer
from dpmed.privacy.clipping.tape import Tape


class RecordingModule(RecordingLayer):
    """Any module whose tensor arguments and results have the rows as their first dimension."""

    _dpmed_is_inside = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own result; the gradients of all parameters inside it are recorded."""
        if self._dpmed_is_inside or self._is_plain():
            return self.own_forward(*args, **kwargs)
        num_rows = next((len(a) for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), 0)
        if num_rows == 0:
            return self.own_forward(*args, **kwargs)
        copies = {
            name: _CopyPerRow.apply(
                self._dpmed_tape.anchor, (parameter,), num_rows, self._dpmed_tape
            )
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }
        return self._map_over_rows(num_rows, copies, args, kwargs)

    def _map_over_rows(
        self, num_rows: int, copies: dict[str, Tensor], args: Any, kwargs: Any
    ) -> Any:
        structure: list[Any] = []

        def one_row(copies: dict[str, Tensor], args: Any, kwargs: Any) -> tuple[Tensor, ...]:
            args, kwargs = tree_map(_with_batch_dim, (args, kwargs))
            leaves, spec = tree_flatten(functional_call(self, copies, args, kwargs))
            structure[:] = [leaves, spec]
            return tuple(leaf.squeeze(0) for leaf in leaves if isinstance(leaf, Tensor))

        def dim_of(leaf: Any) -> int | None:
            is_batched = isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == num_rows
            return 0 if is_batched else None

        in_dims = (0, *tree_map(dim_of, (args, kwargs)))
        self._dpmed_is_inside = True
        try:
            with warnings.catch_warnings():
                # Slow is what this rule is known, and announced, to be.
                warnings.filterwarnings("ignore", message="There is a performance drop")
                rows = torch.vmap(one_row, in_dims, randomness="different")
                tensors = iter(rows(copies, args, kwargs))
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{type(self).__name__} has no per-unit gradient rule and torch.func cannot make "
                f"one: {error}\nFreeze its parameters, replace it, or choose "
                "performance.clipping_engine=opacus_functorch."
            ) from error
        finally:
            self._dpmed_is_inside = False
        leaves, spec = structure
        # vmap returns tensors only; the rest, such as a None beside an output, is put back.
        leaves = [next(tensors) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return tree_unflatten(leaves, spec)


class _CopyPerRow(torch.autograd.Function):
    """A parameter as [R, *shape], without copying; the gradient [R, *shape] is recorded."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, parameters: tuple[nn.Parameter], num_rows: int, tape: Tape
    ) -> Tensor:
        (ctx.parameter,), ctx.tape = parameters, tape
        return ctx.parameter.detach().expand(num_rows, *ctx.parameter.shape)

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[None, None, None, None]:
        ctx.tape.add_instance(ctx.parameter, grads)
        return None, None, None, None


def _with_batch_dim(leaf: Any) -> Any:
    return leaf.unsqueeze(0) if isinstance(leaf, Tensor) else leaf
