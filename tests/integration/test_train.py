"""The main job as a user runs it: train, kill, resume, interrupt, and the folder it leaves."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from dpmed.config import load_config
from dpmed.evaluation.representation import RepresentationFiles
from dpmed.models import embed
from dpmed.stages.learner import initial_model
from dpmed.stages.study import load_study
from tests.integration.conftest import KEY, Train, command, environment

LONGER = ["training.num_steps=14", "training.checkpoint_every_steps=4"]


def _json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _ledger(folder: Path) -> list[dict]:
    files = list((folder / "outputs" / "ledger").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "model" / "model.safetensors")


def _start_and_signal(folder: Path, number: int, *words: str, steps: int = 6) -> int:
    """Starts a run, signals it once the ledger holds some steps, returns its exit status."""
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command(*words), cwd=folder, env=environment(), stdout=log, stderr=log
        )
        while len(_ledger(folder)) < steps:
            assert process.poll() is None, (folder / "log.txt").read_text()
            time.sleep(0.002)
        process.send_signal(number)
        return process.wait(timeout=120)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of LONGER with the injected key."""
    folder = tmp_path_factory.mktemp("finished")
    words = [*LONGER, KEY, "hydra.run.dir=run"]
    subprocess.run(command(*words), cwd=folder, env=environment(), check=True, capture_output=True)
    return folder


def test_a_private_run_keeps_its_promises(train: Train, tmp_path: Path) -> None:
    output = train("hydra.run.dir=run", "privacy.epsilon=8").stdout
    run = tmp_path / "run"
    plan, record = _json(run / "plan.json"), _json(run / "run.json")
    assert plan["private"]
    assert plan["epsilon"] <= 8
    assert record["status"] == "completed"
    assert not list((run / "private").iterdir()), "the key outlived the run"
    entries = _ledger(tmp_path)
    assert [entry["step"] for entry in entries] == list(range(plan["num_steps"]))
    assert {entry["noise_multiplier"] for entry in entries} == {plan["noise_multiplier"]}
    metrics = _json(run / "metrics.json")
    assert 0 <= metrics["splits"]["test"]["auroc"]["macro"]["value"] <= 1
    assert (run / "report" / "index.html").is_file()
    assert "epsilon" in output
    assert str(run / "report" / "index.html") in output


def test_two_runs_with_the_operating_systems_key_differ(train: Train, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(f"hydra.run.dir={name}", "training.num_steps=2", "training.warmup_steps=0")
    first, second = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_an_injected_key_repeats_the_run_and_is_stamped(finished: Path) -> None:
    plan = _json(finished / "run" / "plan.json")
    assert not plan["private"]
    page = (finished / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert "NOT PRIVATE" in page


def test_a_run_is_measured_again_from_its_files_alone(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    for name in ("metrics.json", "model/model.safetensors", "checkpoints/last.ckpt"):
        (run / name).unlink(missing_ok=True)
    words = [sys.executable, "-m", "dpmed.cli", "report", f"run={run}"]
    subprocess.run(words, env=environment(), check=True, capture_output=True)
    assert _json(run / "metrics.json") == _json(finished / "run" / "metrics.json")
    geometry = _json(run / "metrics.json")["geometry"]
    assert "unavailable" not in geometry
    assert 0 < geometry["displacement"]["value"] < 4
    assert (run / "report" / "index.html").is_file()


def test_embeddings_are_those_of_the_start_and_of_the_trained_weights(finished: Path) -> None:
    folder = finished / "run"
    config = load_config(yaml.safe_load((folder / "config.yaml").read_text()))
    data = replace(config.data, cache_dir=str(finished / config.data.cache_dir))
    study = load_study(data, unit="patient", num_workers=0)
    rows = study.rows_of("test")[:5]
    files = RepresentationFiles(folder)
    assert len(pd.read_parquet(files.predictions("initial", "test"))) == len(study.rows_of("test"))
    images = torch.from_numpy(study.images_NHW[rows]).unsqueeze(1).float() / 255
    model = initial_model(config).eval()
    for encoder in ("initial", "trained"):
        if encoder == "trained":
            model.load_state_dict(_weights(folder))
        with torch.inference_mode():
            expected = embed(model, images).numpy()
        found = np.load(files.embeddings(encoder, "test"))[:5]
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_killed_and_resumed_gives_the_same_bits_for_free(
    finished: Path, train: Train, tmp_path: Path
) -> None:
    status = _start_and_signal(tmp_path, signal.SIGKILL, *LONGER, KEY, "hydra.run.dir=run")
    assert status == -signal.SIGKILL
    run = tmp_path / "run"
    assert (run / "private" / "noise.key").stat().st_mode & 0o777 == 0o600
    train("resume=run", small=False)
    expected, found = _weights(finished / "run"), _weights(run)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert len(_ledger(tmp_path)) == 14, "a free replay was charged, or a step was not"


def test_changed_conditions_are_refused_or_charged(train: Train, tmp_path: Path) -> None:
    _start_and_signal(tmp_path, signal.SIGKILL, *LONGER, "hydra.run.dir=run")
    changed = ["resume=run", "performance.physical_batch_size=4", "performance.num_threads=1"]
    refused = train(*changed, small=False, check=False)
    assert refused.returncode != 0
    assert "physical_batch_size (was 8, now 4)" in refused.stdout
    assert "on_changed_replay=charge" in refused.stdout
    assert "Traceback" not in refused.stdout
    charged_output = train(*changed, "on_changed_replay=charge", small=False).stdout
    assert "charged a second time" in charged_output
    entries, record = _ledger(tmp_path), _json(tmp_path / "run" / "run.json")
    assert record["charged_steps"]
    assert len(entries) == 14, "the run spent more steps than planned"
    assert record["steps_done"] == 14 - len(record["charged_steps"])
    assert len({entry["key_id"] for entry in entries}) == 2


def test_ctrl_c_leaves_a_resumable_run(train: Train, tmp_path: Path) -> None:
    _start_and_signal(tmp_path, signal.SIGINT, *LONGER, "hydra.run.dir=run", steps=3)
    record = _json(tmp_path / "run" / "run.json")
    assert record["status"] == "interrupted"
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    train("resume=run", small=False)
    assert _json(tmp_path / "run" / "run.json")["status"] == "completed"
    assert len(_ledger(tmp_path)) == 14


def test_a_finished_run_is_skipped_and_another_one_is_not_overwritten(
    finished: Path, train: Train
) -> None:
    words = [*LONGER, KEY, f"hydra.run.dir={finished / 'run'}"]
    assert "skipped" in train(*words).stdout
    other = train(*words, "seed=1", check=False)
    assert other.returncode != 0
    assert "another configuration" in other.stdout


def test_without_privacy_the_page_says_so(train: Train, tmp_path: Path) -> None:
    output = train("experiment=cxr_nonprivate", "hydra.run.dir=run").stdout
    plan = _json(tmp_path / "run" / "plan.json")
    assert plan["private"] is False
    assert plan["epsilon"] is None
    assert not (tmp_path / "outputs" / "ledger").exists()
    assert "not private" in output.lower() or "no differential privacy" in output.lower()
