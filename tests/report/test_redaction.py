"""Patient ids leave file names and sentences; counts that look like ids stay."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dpmed.report.redaction import (
    known_patient_ids,
    redact_file_name,
    redact_settings,
    redact_text,
)

IDS = {"13", "30805", "site-a-7", "p17", "10000032", "anna_b"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("images_001/images/00000013_005.png", "[patient]_005.png"),
        ("files/p10/p10000032/s50414267.jpg", "s50414267.jpg"),
        ("p10000032_s1.dcm", "[patient]_s1.dcm"),
        ("site-a-7_003.png", "[patient]_003.png"),
        ("ANNA_B.png", "[patient].png"),
        ("broken.png", "broken.png"),
        ("00030806_000.png", "00030806_000.png"),
    ],
)
def test_file_names_lose_ids(name: str, shown: str) -> None:
    assert redact_file_name(name, IDS) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("13 impossible ages turned into missing", "13 impossible ages turned into missing"),
        ("patient 13 is in two splits", "patient [patient] is in two splits"),
        ("patient_id=13 twice", "patient_id=[patient] twice"),
        ("same pixels: 30805 and site-a-7.", "same pixels: [patient] and [patient]."),
        ("images/00030805_001.png", "images/[patient]_001.png"),
    ],
)
def test_sentences_lose_ids(text: str, shown: str) -> None:
    assert redact_text(text, IDS) == shown


def test_ids_come_from_splits_and_predictions(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    pd.DataFrame({"patient_id": ["00000013"], "x": [1]}).to_csv(tmp_path / "splits.csv")
    table = pd.DataFrame({"patient_id": ["Anna_B", None]})
    table.to_parquet(tmp_path / "predictions" / "test.parquet")
    (tmp_path / "predictions" / "validation.parquet").write_bytes(b"PAR1")
    assert known_patient_ids(tmp_path) == {"13", "anna_b"}


def test_secrets_are_hidden_at_any_depth() -> None:
    settings = {"privacy": {"injected_key": "ab", "epsilon": 8}, "split_salt": "x", "token": None}
    assert redact_settings(settings) == {
        "privacy": {"injected_key": "(not shown)", "epsilon": 8},
        "split_salt": "(not shown)",
        "token": None,
    }
