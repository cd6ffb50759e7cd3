"""Weight files: read them safely, check their sum, and write them with their provenance.

safetensors is the format of dpmed; torch files are read with `weights_only=True`, so that no code
in them runs. Fitting the tensors to a model is `fitting`'s work.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dpmed.errors import UserError
from dpmed.models import provenance as provenance_module
from dpmed.models.provenance import Provenance

_WRAPPER_KEYS = ("state_dict", "model", "model_state_dict", "model_ema", "module")
_PREFIXES = ("module.", "_module.", "model.", "_orig_mod.")


def read_weights(path: Path, *, sha256: str | None = None) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, without the prefixes of wrappers ("module.", "model.", ...).

    Args:
        path: A `.safetensors` file, or anything that torch.save wrote: a state dict, or a
            checkpoint that holds one under "state_dict", "model" or the like.
        sha256: Expected sum of the file in hexadecimal; None skips the check.

    Raises:
        UserError: No such file, another sum, a damaged file, or one that holds more than tensors.
    """
    check_file(path, sha256=sha256)
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return {_strip_prefixes(name): tensor for name, tensor in tensors.items()}


def save_weights(model: nn.Module, path: Path, provenance: Provenance) -> None:
    """Writes the model's tensors and its provenance as safetensors: a whole file or none."""
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    partial_path = path.with_name(path.name + ".partial")
    save_file(tensors, partial_path, metadata=provenance_module.to_metadata(provenance))
    os.replace(partial_path, path)


def read_provenance(path: Path) -> Provenance | None:
    """What a safetensors file declares about its history; None where it declares nothing.

    Raises:
        UserError: The file is damaged, or its declaration cannot be read.
    """
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return provenance_module.from_metadata(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"init.path={path} is no readable safetensors file: {error}") from error


def check_file(path: Path, *, sha256: str | None = None) -> None:
    """Raises UserError unless the file is there and, where a sum is given, has that sum."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not there"
        raise UserError(f"init.path={path} is {what}: give a .safetensors or torch weight file.")
    if sha256 and (actual := sha256_of(path)) != sha256.lower():
        raise UserError(
            f"init.path={path} is not the file that was meant: its sha256 is {actual}, "
            f"init.sha256 says {sha256.lower()}. Fetch it again, or correct init.sha256."
        )


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"init.path={path} is no readable safetensors file: {error}") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"init.path={path} holds more than tensors, and unpickling it could run foreign code. "
            f"Where you trust it, save its state dict alone: safetensors.torch.save_file("
            f"state_dict, 'weights.safetensors')."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(f"init.path={path} is no readable torch file: {error}") from error
    return _unwrap(content, path)


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    """The state dict inside a checkpoint: the first level that holds tensors under names."""
    while isinstance(content, Mapping):
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if tensors:
            return tensors
        content = next((content[key] for key in _WRAPPER_KEYS if key in content), None)
    raise UserError(
        f"init.path={path} holds no state dict: looked for tensors at the top and under "
        f"{', '.join(_WRAPPER_KEYS)}."
    )


def _strip_prefixes(name: str) -> str:
    while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    return name
