"""The isolation test: a unit's loss and gradient must not move when the other units change.

One half of the start-up proof (`dpmed.privacy.startup`), with ordinary autograd on the real model
and loss. It knows nothing about clipping engines.

Legend of shape suffixes: V images (views), K consecutive images of the first unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpmed.errors import UserError

#: Inputs and targets of a batch to one loss an image; deterministic apart from torch's generators.
Losses = Callable[[Tensor, Tensor], Tensor]

# A batch that is mixed at random leaves a unit alone by chance (1 in B); so many chances to show.
NUM_SEEDS = 8

# The same kernels run on the same shapes, so an isolated unit does not move at all; the allowance
# is for kernels that are not deterministic.
TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class IsolationTest:
    """The first unit of a batch, while the others are changed.

    `parameters` are those whose gradients must not move; `views` is K.
    """

    model: nn.Module
    losses: Losses
    parameters: Mapping[str, nn.Parameter]
    inputs_V: Tensor
    targets_V: Tensor
    views: int

    def run(self) -> None:
        """Compare losses and gradients, then losses under more seeds.

        Raises:
            UserError: the first unit moved; names the module, the loss, or the augmentation.
        """
        losses_K, grads = self._first_unit(self.inputs_V, self.targets_V)
        for inputs_V, targets_V in self._changed_batches():
            moved_K, moved_grads = self._first_unit(inputs_V, targets_V)
            if _differ(losses_K, moved_K) or any(
                _differ(grad, moved_grads[name]) for name, grad in grads.items()
            ):
                self._refuse(inputs_V, targets_V, seed=0)
        inputs_V, targets_V = next(self._changed_batches())
        for seed in range(1, NUM_SEEDS):
            losses_K = self._forward(self.inputs_V, self.targets_V, seed)
            if _differ(losses_K, self._forward(inputs_V, targets_V, seed)):
                self._refuse(inputs_V, targets_V, seed=seed)

    def _changed_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The first unit as it is; the others opposite to what they were, then copies of it."""
        inputs_V, targets_V = self.inputs_V.clone(), self.targets_V.clone()
        inputs_V[self.views :] = inputs_V[self.views :].neg().sub(1.0)
        targets_V[self.views :] = _opposite(targets_V)[self.views :]
        yield inputs_V, targets_V
        repeats = len(inputs_V) // self.views
        first_inputs, first_targets = self.inputs_V[: self.views], self.targets_V[: self.views]
        yield torch.cat([first_inputs] * repeats), torch.cat([first_targets] * repeats)

    def _first_unit(self, inputs_V: Tensor, targets_V: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        torch.manual_seed(0)
        losses_K = self.losses(inputs_V, targets_V)[: self.views]
        tensors = list(self.parameters.values())
        grads = torch.autograd.grad(losses_K.sum(), tensors, materialize_grads=True)
        return losses_K.detach(), dict(zip(self.parameters, grads, strict=True))

    @torch.no_grad()
    def _forward(self, inputs_V: Tensor, targets_V: Tensor, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return self.losses(inputs_V, targets_V)[: self.views]

    def _refuse(self, inputs_V: Tensor, targets_V: Tensor, *, seed: int) -> None:
        raise UserError(
            "Start-up check failed: one unit's gradient depends on the other units of the batch, "
            f"through {self._culprit(inputs_V, targets_V, seed)}. Clipping per unit protects "
            "nobody there. Use layers that normalise within an image (LayerNorm, GroupNorm), and "
            "a loss with one value an image that neither divides by a sum over the batch nor "
            "mixes images."
        )

    def _culprit(self, inputs_V: Tensor, targets_V: Tensor, seed: int) -> str:
        """The first module whose output moved although its input did not."""
        before = self._trace(self.inputs_V, self.targets_V, seed)
        after = self._trace(inputs_V, targets_V, seed)
        for old, new in zip(before, after, strict=False):
            if _differ(old.output, new.output):
                if _differ(old.input, new.input):
                    return "what is done to the batch before the model"
                return f"module {old.name!r} ({old.kind})"
        return "the loss"

    def _trace(self, inputs_V: Tensor, targets_V: Tensor, seed: int) -> list[_Trace]:
        """What every module makes of the first unit, in the order in which they finish."""
        traces: list[_Trace] = []
        num_units = len(inputs_V) // self.views

        def hook_of(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple[object, ...], output: object) -> None:
                if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                    rows_in, rows_out = len(args[0]) // num_units, len(output) // num_units
                    trace = _Trace(
                        name=name,
                        kind=type(module).__name__,
                        input=args[0][:rows_in].detach().clone(),
                        output=output[:rows_out].detach().clone(),
                    )
                    traces.append(trace)

            return hook

        handles = [
            module.register_forward_hook(hook_of(name or "the model"))
            for name, module in self.model.named_modules()
        ]
        try:
            self._forward(inputs_V, targets_V, seed)
        finally:
            for handle in handles:
                handle.remove()
        return traces


@dataclass(frozen=True, kw_only=True)
class _Trace:
    name: str
    kind: str
    input: Tensor
    output: Tensor


def _differ(old: Tensor, new: Tensor) -> bool:
    """Whether two tensors that should be the same are not, beyond rounding."""
    old, new = old.double(), new.double()
    return not float((old - new).norm()) <= TOLERANCE * float(old.norm()) + 1e-30


def _opposite(targets: Tensor) -> Tensor:
    """Targets that differ everywhere: 1 − y of probabilities, the next class of indices."""
    if targets.is_floating_point():
        return 1.0 - targets
    return (targets + 1) % int(targets.max() + 1 if targets.max() else 2)
