"""A multirun: stable folders, finished jobs skipped, a failed job that stops nobody, one page."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.conftest import Train


def test_a_sweep_is_collected_and_a_rerun_skips(train: Train, tmp_path: Path) -> None:
    words = ["-m", "privacy.epsilon=3,8", "training.num_steps=2", "training.warmup_steps=0"]
    train(*words)
    sweep = tmp_path / "outputs" / "sweeps" / "cxr_eps8"
    runs = sorted(path.parent for path in sweep.glob("*/run.json"))
    assert len(runs) == 2
    assert {json.loads((run / "plan.json").read_text())["target_epsilon"] for run in runs} == {3, 8}
    assert (sweep / "index.html").is_file()
    before = {run: (run / "metrics.json").stat().st_mtime_ns for run in runs}
    output = train(*words).stdout
    assert output.count("skipped") == 2
    assert before == {run: (run / "metrics.json").stat().st_mtime_ns for run in runs}


def test_a_failed_job_is_listed_and_the_others_go_on(train: Train, tmp_path: Path) -> None:
    words = ["-m", "privacy.delta=0.3,1e-5", "training.num_steps=2", "training.warmup_steps=0"]
    process = train(*words, check=False)
    assert process.returncode != 0
    assert "Traceback" not in process.stdout
    sweep = tmp_path / "outputs" / "sweeps" / "cxr_eps8"
    states = {json.loads(path.read_text())["status"] for path in sweep.glob("*/run.json")}
    assert states == {"failed", "completed"}
    assert "delta" in (sweep / "index.html").read_text(encoding="utf-8")
