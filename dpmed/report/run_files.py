"""Reads one run folder: the only place of the report that knows file names.

A file that is missing or truncated becomes an entry of `problems` and an empty value, so that
every other part of the page can still be built. Patient ids and image names of the predictions are
never loaded: no plot or table needs them (`redaction` reads ids alone, to keep them out of text).
This module must not import torch, compute a metric, or write anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import pandas as pd
import pyarrow.parquet as pq
import yaml

T = TypeVar("T")
JSON_FILES = ("plan.json", "run.json", "metrics.json", "data_sheet.json")
SPLITS = ("test", "validation")
FINISHED = ("completed", "finished")
PLOTTED_COLUMNS = ("sex", "age", "view", "site")
PLOTTED_PREFIXES = ("label_", "prob_")


# What reading a value of an unexpected shape raises, once a file is damaged.
DAMAGED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError)


class Unavailable(Exception):  # noqa: N818 - no error: a part that the files do not hold
    """A part of the report cannot be built; the message says why, in place of the part."""


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What one run folder holds, as plain mappings; empty where a file could not be read.

    Attributes:
        twin: folder of the run that this one is compared with, as a rule the same without DP.
    """

    folder: Path
    plan: Mapping[str, Any]
    run: Mapping[str, Any]
    metrics: Mapping[str, Any]
    data_sheet: Mapping[str, Any]
    config: Mapping[str, Any]
    ledger: tuple[Mapping[str, Any], ...]
    predictions: Mapping[str, pd.DataFrame]
    problems: Mapping[str, str]
    twin: Path | None = None

    def need(self, name: str) -> Mapping[str, Any]:
        """The content of one of the JSON files, by file name.

        Raises:
            Unavailable: the file is missing or damaged.
        """
        content: Mapping[str, Any] = getattr(self, name.removesuffix(".json"))
        if not content:
            raise Unavailable(self.problems.get(name, f"{name} is empty."))
        return content

    @property
    def is_synthetic(self) -> bool:
        """True only where the data sheet says so and no other reader is configured."""
        data = self.config.get("data")
        reader = data.get("reader", "synthetic") if isinstance(data, Mapping) else "synthetic"
        return self.data_sheet.get("synthetic") is True and reader == "synthetic"

    @property
    def is_finished(self) -> bool:
        """Whether the run says that it took its last step and was evaluated."""
        return self.run.get("status") in FINISHED

    @property
    def dp_enabled(self) -> bool:
        """Whether noise was calibrated to a target at all; a test with a known key has one too."""
        return self.plan.get("enabled") is not False and is_number(self.plan.get("epsilon"))

    @property
    def is_private(self) -> bool:
        """Whether the plan claims a guarantee: DP on, and noise from a secret key."""
        return self.plan.get("private") is True and self.dp_enabled


def read_run(run_dir: Path, *, twin: Path | None = None) -> RunFiles:
    """Reads every file of a run folder that the report uses.

    Args:
        run_dir: the folder that holds `plan.json`, `metrics.json` and their companions.
        twin: folder of the run to compare it with.
    """
    problems: dict[str, str] = {}

    def attempt(name: str, read: Callable[[Path], T], empty: T) -> T:
        path = run_dir / name
        try:
            return read(path)
        except FileNotFoundError:
            problems[name] = f"{name} is missing from the run folder."
        except (ValueError, OSError, yaml.YAMLError) as error:
            problems[name] = f"{name} cannot be read ({type(error).__name__}); it may be truncated."
        return empty

    nothing: Mapping[str, Any] = {}
    content = {name: attempt(name, _read_json, nothing) for name in JSON_FILES}
    predictions = {
        split: attempt(f"predictions/{split}.parquet", _read_predictions, pd.DataFrame())
        for split in SPLITS
    }
    return RunFiles(
        folder=run_dir,
        plan=content["plan.json"],
        run=content["run.json"],
        metrics=content["metrics.json"],
        data_sheet=content["data_sheet.json"],
        config=attempt("config.yaml", _read_yaml, nothing),
        ledger=attempt("ledger.jsonl", _read_ledger, ()),
        predictions={split: table for split, table in predictions.items() if len(table)},
        problems=problems,
        twin=twin,
    )


def is_number(value: object) -> TypeGuard[float]:
    """True for a finite int or float; false for None, NaN, infinity, booleans and text."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return value == value and abs(value) != float("inf")


def _read_json(path: Path) -> Mapping[str, Any]:
    return _mapping(json.loads(path.read_text(encoding="utf-8")))


def _read_yaml(path: Path) -> Mapping[str, Any]:
    return _mapping(yaml.safe_load(path.read_text(encoding="utf-8")))


def _mapping(content: object) -> Mapping[str, Any]:
    if not isinstance(content, dict) or not content:
        raise ValueError("no mapping, or an empty one")
    return content


def _read_ledger(path: Path) -> tuple[Mapping[str, Any], ...]:
    lines = path.read_text(encoding="utf-8").splitlines()
    entries = [_read_ledger_line(line) for line in lines if line.strip()]
    return tuple(entry for entry in entries if entry)


def _read_ledger_line(line: str) -> Mapping[str, Any]:
    # A crash can cut the last line in half; the lines before it still count.
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _read_predictions(path: Path) -> pd.DataFrame:
    names = pq.read_schema(path).names
    wanted = [
        name for name in names if name in PLOTTED_COLUMNS or name.startswith(PLOTTED_PREFIXES)
    ]
    return pd.read_parquet(path, columns=wanted)
