"""A run folder as later commands meet it: its configuration, that it is complete, its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file
from torch import nn

import dpmed
from dpmed import models
from dpmed.config import RunConfig, load_config
from dpmed.errors import UserError
from dpmed.stages.learner import for_volumes
from dpmed.stages.training import WEIGHTS


def read_config(run_dir: Path) -> RunConfig:
    """The configuration that a run was started with.

    Raises:
        UserError: no run folder, or a configuration of another version of dpmed.
    """
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise UserError(f"{run_dir} is no run folder: it has no config.yaml.")
    try:
        return load_config(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UserError) as error:
        raise UserError(
            f"{path} cannot be read by dpmed {dpmed.__version__}: {error} Where another version "
            "of dpmed wrote it, use the run with that version."
        ) from None


def read_completed_record(run_dir: Path) -> dict[str, Any]:
    """The content of `run.json`.

    Raises:
        UserError: the file cannot be read, or the run is not complete.
    """
    path = run_dir / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}).") from None
    status = record.get("status")
    if status != "completed":
        raise UserError(
            f"{run_dir} is not complete (status: {status}), so its plan is not yet its guarantee. "
            f"Go on with: python train.py resume={run_dir}"
        )
    return record


def trained_model(config: RunConfig, run_dir: Path) -> nn.Module:
    """The model with the weights that the run exported, on the CPU, in evaluation mode."""
    tensors = load_file(run_dir / WEIGHTS)
    model = models.build_model(
        name=config.model.name,
        num_labels=len(config.data.labels),
        image_size=config.data.preprocessing.image_size,
        in_chans=config.model.in_chans,
        mean=config.model.input_mean,
        std=config.model.input_std,
        ls_init_value=config.model.ls_init_value,
    )
    unknown = models.Provenance(source="file", architecture=config.model.name)
    model, _ = for_volumes(config, model, unknown)
    model = model.to(dtype=next(iter(tensors.values())).dtype)
    model.load_state_dict(tensors)
    return model.eval()
