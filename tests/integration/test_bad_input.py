"""Bad input: one clear message that names the value, no traceback, a non-zero exit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dpmed.compose import compose
from dpmed.errors import UserError
from dpmed.pipeline import run
from tests.integration.conftest import SMALL, Train

LABELS = ["atelectasis", "cardiomegaly", "pleural_effusion", "pneumonia", "no_finding"]


def _manifest(folder: Path, num_patients: int = 60) -> Path:
    """A hospital's table of noise images, two a patient."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(2 * num_patients):
        name = f"scan{number}.png"
        Image.fromarray(random.integers(0, 255, (32, 32), dtype=np.uint8)).save(folder / name)
        row = {"image": name, "patient_id": f"P{number // 2}", "sex": "FM"[number % 4 // 2]}
        rows.append(row | {label: int(random.random() < 0.4) for label in LABELS})
    path = folder / "table.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def _run(folder: Path, *words: str) -> None:
    replaced = ("data.num_patients=", *(f"{word.split('=')[0]}=" for word in words))
    small = [word for word in SMALL if not word.startswith(replaced)]
    config = compose(
        [*small, f"data.cache_dir={folder}/cache", f"privacy.ledger_dir={folder}/ledger", *words]
    )
    run(config, run_dir=folder / "run")


def _manifest_words(path: Path) -> list[str]:
    return ["data=manifest", f"data.path={path}", "data.id=hospital", "privacy.num_units=40"]


def test_a_hospitals_table_runs_to_a_report(tmp_path: Path) -> None:
    path = _manifest(tmp_path)
    _run(tmp_path, *_manifest_words(path), "data.columns.sex=sex", "privacy.delta=1e-3")
    page = (tmp_path / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\bP\d+\b", page)
    assert not (tmp_path / "run" / "contact_sheet.png").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.labels=[pneumonia,nodul]"], "nodul"),
        (["data.columns.age=Alter"], "Alter"),
        (["data.columns.patient_id=null"], "patient id"),
        (["privacy.num_units=null"], "privacy.num_units=N"),
        (["privacy.delta=0.2"], "delta"),
        (["privacy.epsilon=0.0001"], "epsilon"),
        (["model.name=convnext_ato"], "convnext_atto"),
        (["init=imagenet"], "init=file"),
        (["init=file", "init.path=nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_bad_settings_stop_with_one_message(
    words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    path = _manifest(tmp_path, num_patients=10)
    with pytest.raises(UserError, match=expected):
        _run(tmp_path, *_manifest_words(path), *words)


def test_an_unreadable_image_is_named_and_may_be_skipped(tmp_path: Path) -> None:
    path = _manifest(tmp_path)
    (tmp_path / "scan7.png").write_bytes(b"no image")
    (tmp_path / "scan9.png").unlink()
    words = [*_manifest_words(path), "privacy.delta=1e-3"]
    with pytest.raises(UserError, match=r"scan9\.png"):
        _run(tmp_path, *words)
    _run(
        tmp_path,
        *words,
        "data.max_skipped_images=2",
        "training.num_steps=2",
        "training.warmup_steps=0",
    )
    page = (tmp_path / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert "scan7.png" in page


def test_the_same_image_under_two_patients_is_listed(tmp_path: Path) -> None:
    path = _manifest(tmp_path)
    (tmp_path / "scan9.png").write_bytes((tmp_path / "scan0.png").read_bytes())
    short = ["privacy.delta=1e-3", "training.num_steps=2", "training.warmup_steps=0"]
    _run(tmp_path, *_manifest_words(path), *short)
    listed = pd.read_csv(tmp_path / "run" / "duplicate_images.csv")
    assert set(listed[["image", "other_image"]].to_numpy().ravel()) == {"scan0.png", "scan9.png"}
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert any("same pixels" in warning for warning in record["warnings"])


def test_a_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    path = _manifest(tmp_path, num_patients=10)
    table = pd.read_csv(path)
    table["split"] = ["train", "test"] * 10
    table.to_csv(path, index=False)
    with pytest.raises(UserError, match="two splits"):
        _run(tmp_path, *_manifest_words(path), "data.columns.split=split")


def test_the_command_line_prints_one_message(train: Train) -> None:
    process = train("privcy.epsilon=3", check=False)
    assert process.returncode != 0
    assert (
        process.stdout.strip()
        == "error: privcy.epsilon is not a setting. Did you mean 'privacy.epsilon'?"
    )
    process = train("privacy.delta=0.3", check=False)
    assert process.returncode != 0
    assert "Traceback" not in process.stdout
    assert "delta" in process.stdout
