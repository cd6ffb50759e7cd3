"""Public releases by name, from their files to the report; made-up, but in the official layout."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from dpmed.compose import compose
from dpmed.pipeline import run
from dpmed.stages.tables import split_table
from tests.integration.conftest import SMALL
from tests.releases import RELEASES

WORDS = [
    *(word for word in SMALL if not word.startswith("data.num_patients")),
    "training.num_steps=2",
    "training.warmup_steps=0",
    "privacy.num_units=30",
    "evaluation.embeddings=false",
]


def settings(name: str, folder: Path, *words: str) -> list[str]:
    places = [f"data.root={folder}/release", f"data.cache_dir={folder}/cache"]
    return [*WORDS, f"data={name}", *places, f"privacy.ledger_dir={folder}/ledger", *words]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "release").mkdir()
    return tmp_path


def test_chexpert_with_broken_images_and_half_of_the_patients(folder: Path) -> None:
    """What was left out, and where each label comes from, is in the record and the report."""
    RELEASES["chexpert"](folder / "release")
    words = settings(
        "chexpert", folder, "data.fraction=0.5", "preprocessing=paper", "data.max_skipped_images=9"
    )
    config = compose(words)
    broken = split_table(config.data)["image"][:3].tolist()
    for image in broken:
        (folder / "release" / image).write_bytes(b"no image")
    assert run(config, run_dir=folder / "run") is not None

    record = json.loads((folder / "run" / "run.json").read_text())
    assert [item["image"] for item in record["skipped_images"]] == broken
    sheet = json.loads((folder / "run" / "data_sheet.json").read_text())
    assert sheet["num_skipped"] == 3
    assert sheet["preprocessing"]["equalize"] is True
    assert sheet["label_harmonisation"]["pleural_effusion"] == ["Pleural Effusion"]
    assert json.loads((folder / "run" / "plan.json").read_text())["num_units"] == 15
    page = (folder / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert "uncertain labels count as missing, blank labels as missing" in page
    assert "3 images skipped" in page


def test_vindr_cxr_protects_images(folder: Path) -> None:
    RELEASES["vindr_cxr"](folder / "release")
    assert run(compose(settings("vindr_cxr", folder)), run_dir=folder / "run") is not None
    assert json.loads((folder / "run" / "plan.json").read_text())["unit"] == "image"
    predictions = pd.read_parquet(folder / "run" / "predictions" / "test.parquet")
    assert predictions["patient_id"].equals(predictions["image"]), "intervals resample images"
