"""The weights that ship with dpmed: learnt on synthetic radiographs, so that they cost no privacy.

They come from `python train.py experiment=cxr_pretrain`: the embedded generator's public site,
whose scanner lies outside those of the private sites. Half precision keeps the file small;
`initialise` copies it into the model's own precision. The file declares its history like any other.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from dpmed.errors import UserError
from dpmed.models.provenance import to_metadata
from dpmed.models.weights import read_provenance

#: Of the drawn radiographs; no patient is behind them.
LICENCE = "Apache-2.0"

_FOLDER = Path(__file__).parent / "shipped_weights"


def shipped_path(architecture: str) -> Path:
    """The shipped weight file of an architecture.

    Raises:
        UserError: none ships for this one; names those that do.
    """
    path = _FOLDER / f"{architecture}.safetensors"
    if not path.is_file():
        shipped = sorted(file.stem for file in _FOLDER.glob("*.safetensors"))
        raise UserError(
            f"init=synthetic has no weights for model.name={architecture}; dpmed ships them for "
            f"{', '.join(shipped) or 'no architecture'}. Choose one of these, init=scratch, or "
            "init=file with weights of your own."
        )
    return path


def ship(source: Path) -> Path:
    """Makes the weights of a finished `cxr_pretrain` run the shipped ones of their architecture.

    Args:
        source: `model/model.safetensors` of the run.

    Raises:
        UserError: the file does not declare its history.
    """
    provenance = read_provenance(source)
    if provenance is None:
        raise UserError(f"{source} declares no history; only weights with one are shipped.")
    tensors = {name: tensor.to(torch.float16) for name, tensor in load_file(source).items()}
    path = _FOLDER / f"{provenance.architecture}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path, metadata=to_metadata(provenance))
    return path
