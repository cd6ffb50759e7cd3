"""The run folder's own record: `config.yaml` at the start, `run.json` kept true all along.

Everything that a reader needs to know about a run besides its results: status, versions, hashes,
sizes and times. It holds no patient data.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

import dpmed
from dpmed.config import RunConfig, to_mapping

_PACKAGES = (
    "torch", "opacus", "dp-accounting", "timm", "lightning", "hydra-core", "monai", "fairlearn",
    "wandb", "numpy", "pandas", "scikit-learn", "scipy", "cryptography",
)  # fmt: skip

_SENSITIVE_NOTE = """\
This folder is as sensitive as the training data: checkpoints, predictions and embeddings are not
covered by epsilon. Only `dpmed release` writes what may leave; private/ holds the secret key while
the run is unfinished and must never be copied.
"""


class RunRecord:
    """Writes `run.json` at every change; a context manager that records how the run ended.

    Args:
        run_dir: created where missing.
        config: written to `config.yaml` unless the folder has one (a resumed run).
    """

    def __init__(self, run_dir: Path, config: RunConfig) -> None:
        self.path = run_dir / "run.json"
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "error.txt").unlink(missing_ok=True)
        (run_dir / "SENSITIVE.txt").write_text(_SENSITIVE_NOTE, encoding="utf-8")
        config_file = run_dir / "config.yaml"
        if not config_file.exists():
            text = yaml.safe_dump(to_mapping(config), sort_keys=False)
            config_file.write_text(text, encoding="utf-8")
        self._clock = time.monotonic()
        previous = self._previous()
        self.content: dict[str, Any] = {
            "run_id": secrets.token_hex(8),
            "experiment": config.name,
            "config_hash": config.config_hash,
            "seconds": {},
            "warnings": [],
            "skipped_images": [],
            **previous,
            "code_version": code_version(),
            "versions": versions(),
            "status": "running",
            "started": previous.get("started", _now()),
            "resumed": [*previous.get("resumed", []), *([_now()] if previous else [])],
        }

    @property
    def run_id(self) -> str:
        """Random name of the run in the ledger; a resumed run keeps it."""
        return str(self.content["run_id"])

    def __enter__(self) -> RunRecord:
        self.update()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is not None:
            status = "interrupted" if issubclass(kind, KeyboardInterrupt | SystemExit) else "failed"
            self.update(status=status, error=f"{kind.__name__}: {error}")

    def update(self, **fields: Any) -> None:
        """Sets fields and writes the record in one step."""
        self.content.update(fields)
        temporary = self.path.with_suffix(".json.partial")
        temporary.write_text(json.dumps(self.content, indent=2), encoding="utf-8")
        os.replace(temporary, self.path)

    def warn(self, message: str) -> None:
        """Keeps a warning for the report."""
        if message not in self.content["warnings"]:
            self.update(warnings=[*self.content["warnings"], message])

    def stage_done(self, stage: str) -> None:
        """Books the seconds since the previous stage, added up over resumed parts of a run."""
        now = time.monotonic()
        seconds = dict(self.content["seconds"])
        seconds[stage] = round(seconds.get(stage, 0.0) + now - self._clock, 2)
        self._clock = now
        self.update(seconds=seconds)

    def finish(self, status: str) -> None:
        """Closes the record."""
        self.update(status=status, finished=_now())

    def _previous(self) -> dict[str, Any]:
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}


def code_version() -> str:
    """Package version and a hash of every Python source file in it."""
    digest = hashlib.sha256()
    root = Path(dpmed.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return f"{dpmed.__version__}+{digest.hexdigest()[:12]}"


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result may depend on."""
    return {"python": platform.python_version()} | {
        name: metadata.version(name) for name in _PACKAGES
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
