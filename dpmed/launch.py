"""From a composed Hydra configuration to a run: the seam between the command line and the pipeline.

It freezes the configuration, decides between a new run, a resumed one and a finished one, and turns
a `UserError` into one message. What a run does is in `dpmed.pipeline`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from dpmed.config import RunConfig, known_keys, load_config, to_mapping
from dpmed.errors import UserError

logger = logging.getLogger(__name__)

_MAY_DIFFER = ("resume", "on_changed_replay", "logger", "performance")


def launch(composed: DictConfig) -> None:
    """Runs, resumes or skips one job; in a sweep a failed job does not stop the others."""
    hydra_config = HydraConfig.get()
    run_dir = Path(hydra_config.runtime.output_dir)
    is_sweep = hydra_config.mode == RunMode.MULTIRUN
    try:
        config = freeze(composed)
        if config.resume is not None:
            config = resumed_config(config, list(hydra_config.overrides.task))
        _run_or_skip(config, run_dir)
    except UserError as error:
        if not is_sweep:
            sys.exit(f"error: {error}")
        logger.error("error in %s: %s", run_dir, error)
        (run_dir / "error.txt").write_text(f"{error}\n", encoding="utf-8")


def freeze(composed: DictConfig) -> RunConfig:
    """The checked, frozen configuration.

    Raises:
        UserError: a required setting is missing, or a value is not allowed.
    """
    try:
        mapping = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        name = str(error.full_key)
        raise UserError(f"{name} is missing: add {name}=VALUE to the command line.") from None
    assert isinstance(mapping, dict)
    return load_config({str(key): value for key, value in mapping.items()})


def resumed_config(typed: RunConfig, overrides: list[str]) -> RunConfig:
    """The configuration that an interrupted run was started with.

    Performance and logger settings may be given anew; anything else that was typed must agree.

    Raises:
        UserError: no run to resume, or a typed setting differs from the run's own.
    """
    assert typed.resume is not None
    folder = Path(typed.resume)
    saved_file = folder / "config.yaml"
    if not saved_file.is_file():
        raise UserError(f"resume={typed.resume}: no run there ({saved_file} is missing).")
    saved = load_config(yaml.safe_load(saved_file.read_text(encoding="utf-8")))
    groups = {override.split("=")[0].lstrip("+~").split(".")[0] for override in overrides}
    if groups - set(_MAY_DIFFER):
        changed = _differences(to_mapping(saved), to_mapping(typed))
        if changed:
            raise UserError(
                f"resume={typed.resume}: the command line and the run's config.yaml differ in "
                f"{'; '.join(changed[:5])}. Resume with resume= alone, or start a new run."
            )
    return replace(
        saved,
        resume=typed.resume,
        on_changed_replay=typed.on_changed_replay,
        performance=typed.performance if "performance" in groups else saved.performance,
        logger=typed.logger if "logger" in groups else saved.logger,
    )


def _run_or_skip(config: RunConfig, run_dir: Path) -> None:
    from dpmed.pipeline import run

    status = _recorded_status(run_dir, config.config_hash)
    if status == "completed":
        logger.info("%s is finished with the same configuration: skipped.", run_dir)
        return
    run(config, run_dir=run_dir)


def _recorded_status(run_dir: Path, config_hash: str) -> str | None:
    try:
        record = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if record.get("config_hash") != config_hash:
        raise UserError(
            f"{run_dir} holds a run with another configuration (hash {record.get('config_hash')}, "
            f"this one {config_hash}). Choose another folder with hydra.run.dir= or "
            "hydra.sweep.dir=, or remove it."
        )
    return record.get("status")


def _differences(saved: Mapping[str, Any], typed: Mapping[str, Any]) -> list[str]:
    changed = []
    for key in sorted({*known_keys(saved), *known_keys(typed)}):
        old, new = _value(saved, key), _value(typed, key)
        if key.split(".")[0] not in _MAY_DIFFER and not isinstance(old, dict) and old != new:
            changed.append(f"{key} (run {old!r}, typed {new!r})")
    return changed


def _value(mapping: Mapping[str, Any], key: str) -> Any:
    node: Any = mapping
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
