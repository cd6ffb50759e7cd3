"""Reads all runs below a folder into one table, and lists those without a result with the reason.

Stands between the run folders of a multirun and `collect`. Settings that differ between the runs
become columns by themselves. Must not average anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dpmed.errors import UserError
from dpmed.report.headline import macro_by_group, mapping, reported_split
from dpmed.report.numbers import Estimate, estimate
from dpmed.report.redaction import known_patient_ids, redact_text
from dpmed.report.run_files import RunFiles, is_number, read_run

MARKERS = ("run.json", "config.yaml", "error.txt", ".hydra")
FINISHED = ("completed", "finished")
# Settings that name places or speed: two runs that differ in them are the same experiment.
_IGNORED = ("seed", "name", "resume", "on_changed_replay", "logger", "performance")
_ALWAYS_COLUMNS = ("init.source", "model.name")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The runs of a folder.

    Attributes:
        runs: one row a finished run; `run`, `epsilon` (missing without DP), `delta`, `seed`, one
            column for each of `varying`, then `auroc.<label>` with `.low` and `.high`, and
            `group.<attribute>.<group>` for the mean over labels.
        varying: settings that differ between runs, besides seed and epsilon.
        unfinished: folder and reason of every run without results.
        labels: labels in the order of the files, `macro` last.
    """

    runs: pd.DataFrame
    varying: list[str]
    unfinished: list[tuple[str, str]]
    labels: list[str]
    groups: list[tuple[str, str]]


def read_sweep(folders: Mapping[str, Path]) -> Sweep:
    """Reads runs by name.

    Args:
        folders: the name under which a run is listed, and its folder.
    """
    read = {name: read_run(folder) for name, folder in sorted(folders.items())}
    unfinished = [(name, reason) for name, run in read.items() if (reason := _reason(run))]
    finished = {name: run for name, run in read.items() if not _reason(run)}
    varying = _varying(list(finished.values()))
    rows = [_row(name, run, varying) for name, run in finished.items()]
    labels = list(dict.fromkeys(label for run in finished.values() for label in _auroc(run)))
    groups = list(
        dict.fromkeys(
            where
            for run in finished.values()
            for where, _ in macro_by_group(reported_split(run)[1])
        )
    )
    return Sweep(
        runs=pd.DataFrame(rows),
        varying=varying,
        unfinished=unfinished,
        labels=[label for label in labels if label != "macro"] + ["macro"],
        groups=groups,
    )


def find_runs(sweep_dir: Path) -> dict[str, Path]:
    """Run folders below a folder, by their path relative to it.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    if not sweep_dir.is_dir():
        raise UserError(f"{sweep_dir} is no folder. Name the folder of a multirun.")
    found = {str(path.relative_to(sweep_dir)): path for path in _walk(sweep_dir)}
    if not found:
        raise UserError(
            f"{sweep_dir} holds no run: no folder below it has one of {', '.join(MARKERS)}. "
            "Name the folder that `python train.py -m ...` wrote."
        )
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        if any((path / marker).exists() for marker in MARKERS):
            yield path
        else:
            yield from _walk(path)


def _reason(run: RunFiles) -> str:
    """Why a run has no result to show; empty where it has one."""
    status = run.run.get("status")
    if status is None:
        return run.problems.get("run.json", "run.json holds no status.")
    if status not in FINISHED:
        error = redact_text(str(run.run.get("error") or ""), known_patient_ids(run.folder))
        return f"status: {status}" + (f" ({error})" if error else "")
    if "metrics.json" in run.problems or "plan.json" in run.problems:
        return run.problems.get("metrics.json") or run.problems["plan.json"]
    macro = estimate(_auroc(run).get("macro"))
    return "" if macro.value is not None else f"macro AUROC: {macro.reason}"


def _auroc(run: RunFiles) -> dict[str, Any]:
    _, results = reported_split(run)
    return {name: entry for name, entry in mapping(results, "auroc").items() if name != "micro"}


def _row(name: str, run: RunFiles, varying: list[str]) -> dict[str, Any]:
    settings = _flatten(run.config)
    row: dict[str, Any] = {
        "run": name,
        "epsilon": _target_epsilon(run),
        "epsilon_spent": run.plan.get("epsilon"),
        "delta": run.plan.get("delta") if run.dp_enabled else None,
        "private": run.is_private,
        "seed": run.config.get("seed"),
        **{setting: str(settings.get(setting, "")) for setting in varying},
        "config_hash": run.run.get("config_hash"),
        "split_hash": run.run.get("split_hash"),
        "code_version": run.run.get("code_version"),
    }
    for label, entry in _auroc(run).items():
        row |= _fields(f"auroc.{label}", estimate(entry))
    for (attribute, group), item in macro_by_group(reported_split(run)[1]):
        row |= _fields(f"group.{attribute}.{group}", item)
    return row


def _fields(name: str, item: Estimate) -> dict[str, Any]:
    return {
        name: item.value,
        f"{name}.low": item.low,
        f"{name}.high": item.high,
        f"{name}.num_positive": item.num_positive,
        f"{name}.num_negative": item.num_negative,
    }


def _target_epsilon(run: RunFiles) -> float | None:
    if not run.dp_enabled:
        return None
    for value in (mapping(run.config, "privacy").get("epsilon"), run.plan.get("target_epsilon")):
        if is_number(value):
            return float(value)
    return float(run.plan["epsilon"])


def _varying(runs: list[RunFiles]) -> list[str]:
    """Settings with more than one value among the runs of equal privacy, in the config's order."""
    settings = [_flatten(run.config) for run in runs]
    names = dict.fromkeys(name for flat in settings for name in flat)
    differing = [
        name
        for name in names
        if not name.startswith(_IGNORED) and not name.startswith("privacy.")
        and len({str(flat.get(name)) for flat in settings}) > 1
    ]  # fmt: skip
    always = [name for name in _ALWAYS_COLUMNS if name in names and name not in differing]
    private = [flat for flat in settings if flat.get("privacy.enabled")]
    differing += [
        name
        for name in names
        if name.startswith("privacy.")
        and name not in ("privacy.epsilon", "privacy.enabled")
        and len({str(flat.get(name)) for flat in private}) > 1
    ]
    return always + differing


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
