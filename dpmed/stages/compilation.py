"""`performance.compile`: torch.compile for the models of a run, and whether this machine can.

Private training compiles inside the clipper (`dpmed.privacy.clipping.compiled`); everything else
compiles the model's forward here, with the same backend.
"""

from __future__ import annotations

import torch
from torch import nn

from dpmed.errors import UserError
from dpmed.privacy.clipping.compiled import BACKEND_OPTIONS

BACKEND = "inductor"


def refuse_without_compiler(device: torch.device) -> None:
    """Compiles the smallest function.

    Raises:
        UserError: this machine has no compiler that torch can use.
    """
    try:
        torch.compile(_one_more, backend=BACKEND)(torch.zeros(2, device=device))
    except Exception as error:  # torch has no class in common for all that can be missing
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"performance.compile=true: torch.compile does not work on this machine: {reason}\n"
            "It needs a C++ compiler such as g++ and Python's headers, on a GPU Triton. Install "
            "them, or set performance.compile=false."
        ) from error


def compile_in_place(model: nn.Module) -> None:
    """Compiles the model's forward; its names, its weights and its copies stay as they are."""
    model.compile(backend=BACKEND, options=BACKEND_OPTIONS[BACKEND])


def _one_more(tensor: torch.Tensor) -> torch.Tensor:
    return tensor + 1
