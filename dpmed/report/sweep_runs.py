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
# Settings that name places or speed: two runs that differ in them are the same experiment.
_IGNORED = ("name", "resume", "on_changed_replay", "logger", "performance")
_SEED = "seed"  # of a run, and of the generator that draws its cohort
_ALWAYS_NAMED = ("data.id", "model.name", "init.source")
# The geometry that a sweep follows, with its bounds; the page of a run has all of it.
GEOMETRY = {
    "displacement": (0.0, 4.0),
    "effective_dimension": (1.0, float("inf")),
    "probe_utility": (0.0, 1.0),
    "end_to_end_utility": (0.0, 1.0),
    "utilisation_gap": (-1.0, 1.0),
    "linear_cka": (0.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The runs of a folder.

    Attributes:
        runs: one row a finished run; `run`, `epsilon` (missing without DP), `delta`, `seed`, one
            column for each of `varying`, `dataset`, `initialisation`, then `auroc.<label>` with
            `.low` and `.high`, `group.<attribute>.<group>` for the mean over labels, and
            `geometry.<metric>`.
        varying: settings that differ between runs, besides seeds and epsilon.
        constant: settings that name the experiment and are the same in all runs.
        unfinished: folder and reason of every run without results.
        labels: labels in the order of the files, `macro` last.
        groups: (attribute, group) in the order of the files.
        geometry: metrics of `GEOMETRY` that any run has.
    """

    runs: pd.DataFrame
    varying: list[str]
    constant: dict[str, str]
    unfinished: list[tuple[str, str]]
    labels: list[str]
    groups: list[tuple[str, str]]
    geometry: list[str]


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
        constant=_constant(list(finished.values()), varying),
        unfinished=unfinished,
        labels=[label for label in labels if label != "macro"] + ["macro"],
        groups=groups,
        geometry=[
            name
            for name in GEOMETRY
            if any(name in mapping(run.metrics, "geometry") for run in finished.values())
        ],
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
    if not run.is_finished:
        words = f"status: {status}" if status else run.problems.get("run.json", "status unknown")
        error = _error(run)
        return f"{words} ({error})" if error else words
    if "metrics.json" in run.problems or "plan.json" in run.problems:
        return run.problems.get("metrics.json") or run.problems["plan.json"]
    macro = estimate(_auroc(run).get("macro"))
    return "" if macro.value is not None else f"macro AUROC: {macro.reason}"


def _error(run: RunFiles) -> str:
    """What the job said when it failed, in one line and without patient ids."""
    text = str(run.run.get("error") or "")
    path = run.folder / "error.txt"
    if not text and path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace")
    return redact_text(" ".join(text.split()), known_patient_ids(run.folder))


def _auroc(run: RunFiles) -> dict[str, Any]:
    _, results = reported_split(run)
    return {name: entry for name, entry in mapping(results, "auroc").items() if name != "micro"}


def _row(name: str, run: RunFiles, varying: list[str]) -> dict[str, Any]:
    settings = _settings(run)
    row: dict[str, Any] = {
        "run": name,
        "epsilon": _target_epsilon(run),
        "epsilon_spent": run.plan.get("epsilon"),
        "delta": run.plan.get("delta") if run.dp_enabled else None,
        "private": run.is_private,
        "seed": run.config.get("seed"),
        **{setting: str(settings.get(setting, "")) for setting in varying},
        "dataset": str(settings.get("data.id", "")),
        "initialisation": str(settings.get("init.source", "")),
        "num_parameters": run.run.get("num_parameters"),
        "config_hash": run.run.get("config_hash"),
        "split_hash": run.run.get("split_hash"),
        "code_version": run.run.get("code_version"),
    }
    for label, entry in _auroc(run).items():
        row |= _fields(f"auroc.{label}", estimate(entry))
    for (attribute, group), item in macro_by_group(reported_split(run)[1]):
        row |= _fields(f"group.{attribute}.{group}", item)
    geometry = mapping(run.metrics, "geometry")
    for name in GEOMETRY:
        if name in geometry:
            item, column = estimate(geometry[name]), f"geometry.{name}"
            row |= {column: item.value, f"{column}.low": item.low, f"{column}.high": item.high}
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
    """Settings with more than one value, in the config's order; privacy among private runs only."""
    everything = [_settings(run) for run in runs]
    private = [_settings(run) for run in runs if run.dp_enabled]
    names = dict.fromkeys(name for flat in everything for name in flat)
    return [
        name
        for name in names
        if not name.startswith(_IGNORED)
        and name.split(".")[-1] != _SEED
        and name not in ("privacy.epsilon", "privacy.enabled")
        and _num_values(name, private if name.startswith("privacy.") else everything) > 1
    ]


def _constant(runs: list[RunFiles], varying: list[str]) -> dict[str, str]:
    """The settings that name an experiment, where all runs share them."""
    flat = _settings(runs[0]) if runs else {}
    names = [name for name in _ALWAYS_NAMED if name in flat and name not in varying]
    return {name: str(flat[name]) for name in names}


def _settings(run: RunFiles) -> dict[str, Any]:
    """Dotted settings; a file of start weights counts by its name, wherever it lies."""
    flat = _flatten(run.config)
    path = flat.pop("init.path", None)
    flat.pop("init.sha256", None)
    if path:
        flat["init.source"] = f"{flat.get('init.source', 'file')} {Path(str(path)).stem}"
    return flat


def _num_values(name: str, settings: list[dict[str, Any]]) -> int:
    return len({str(flat.get(name)) for flat in settings})


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
