"""`init=domain`: weights that dpmed fitted without DP on a corpus that is declared public.

`experiment=cxr_pretrain` writes them. `init=file` takes any weights and warns where their history
is unknown; here the history is the point, so what is not declared is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dpmed.errors import UserError
from dpmed.models.provenance import Provenance
from dpmed.models.weights import check_file, read_provenance

_IN_A_RUN = ("model/model.safetensors", "model.safetensors")
_WAY_OUT = (
    "Pretrain with: python train.py experiment=cxr_pretrain data=NAME data.public_licence=LICENCE. "
    "Weights of other origin start a run with init=file."
)


@dataclass(frozen=True, kw_only=True)
class DomainWeights:
    """A weight file and what it declares."""

    path: Path
    provenance: Provenance


def read_domain(path: Path, *, architecture: str, sha256: str | None = None) -> DomainWeights:
    """The weight file of a pretraining run and its history, checked; its tensors are not read.

    Args:
        path: the run folder, its `model` folder, or the file itself.
        architecture: timm's name of the model that is to start from it.
        sha256: expected sum of the file; None skips the check.

    Raises:
        UserError: no such file, no declared history, data among it that is not declared public, or
            another architecture.
    """
    path = _file_in(path)
    check_file(path, sha256=sha256)
    provenance = read_provenance(path)
    if provenance is None or not provenance.is_declared or not provenance.data_sets:
        raise UserError(
            f"init.path={path} does not say which data its weights have seen, and init=domain "
            f"needs to know. {_WAY_OUT}"
        )
    private = [seen.name for seen in provenance.data_sets if not seen.licence]
    if private:
        raise UserError(
            f"init.path={path} has seen {', '.join(private)}, which is not declared public, so "
            f"its weights may tell of patients whom no guarantee of this run covers. {_WAY_OUT}"
        )
    if provenance.architecture != architecture:
        raise UserError(
            f"init.path={path} holds {provenance.architecture}, and model.name={architecture}. "
            f"Set model.name={provenance.architecture}, or pretrain {architecture}."
        )
    return DomainWeights(path=path, provenance=provenance)


def _file_in(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in _IN_A_RUN:
        if (path / name).is_file():
            return path / name
    raise UserError(
        f"init.path={path} is a folder without {_IN_A_RUN[0]}: give the folder of a finished "
        "cxr_pretrain run, or its weight file."
    )
