"""How a layer of the user's model is made to record, and how it is given back unchanged.

A recording layer is the layer's own object with a class that derives from the rule and from the
layer's class: parameters, names, state_dict and isinstance checks stay, and a deep copy records
nothing. Outside autograd, or with every parameter frozen, it runs the original forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dpmed.errors import UserError
from dpmed.privacy.clipping.records import Layout
from dpmed.privacy.clipping.tape import Tape


class RecordingLayer(nn.Module):
    """What every rule derives from: `forward` of the original, or `record_forward` when training.

    A rule implements `record_forward` with the same arguments and the same result as the layer.
    """

    _dpmed_tape: Tape
    #: The layer's output through a Function that records; given by each rule.
    record_forward: Callable[..., Tensor]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's output; its parameters' gradients go to the tape."""
        if self._is_plain():
            return self.own_forward(*args, **kwargs)
        return self.record_forward(*args, **kwargs)

    def own_forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer does by itself."""
        return super().forward(*args, **kwargs)  # type: ignore[misc]

    def _is_plain(self) -> bool:
        return self._dpmed_tape.is_paused or not torch.is_grad_enabled()


def make_recording(layer: nn.Module, rule: type[RecordingLayer], tape: Tape) -> None:
    """Give the layer the rule's forward, in place."""
    layer.__class__ = _combined_class(rule, type(layer))
    layer.__dict__["_dpmed_tape"] = tape


def make_plain(layer: nn.Module) -> None:
    """Give the layer its own class back, in place."""
    if isinstance(layer, RecordingLayer):
        layer.__class__ = type(layer).__bases__[1]
        del layer._dpmed_tape


_combined_classes: dict[tuple[type, type], Any] = {}


def _combined_class(rule: type[RecordingLayer], own: type[nn.Module]) -> Any:
    """One class a pair, so that copies and layers of a kind share it."""
    if (rule, own) not in _combined_classes:
        namespace = {"__module__": own.__module__, "__doc__": own.__doc__}
        _combined_classes[rule, own] = type(own.__name__, (rule, own), namespace)
    return _combined_classes[rule, own]


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype in which a matrix product of this tensor runs: autocast's where it is on.

    Raises:
        UserError: float16, whose range makes norms overflow.
    """
    device, dtype = tensor.device.type, tensor.dtype
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    if dtype == torch.float16:
        raise UserError(
            "A layer computes in torch.float16, which is not supported for private training: its "
            "range makes norms overflow. Use float32, or bf16 autocast "
            "(performance.precision=bf16-mixed)."
        )
    return dtype


def like_weight(weight: Tensor) -> Layout:
    """Gradients [..., P, D] of a matrix as those of the weight [P, D, 1, ...] that holds it."""
    return lambda grads: grads.reshape(*grads.shape[:-2], *weight.shape)


def trainable(parameter: nn.Parameter | None) -> nn.Parameter | None:
    """The parameter if it is trained, else None."""
    return parameter if parameter is not None and parameter.requires_grad else None
