"""Runs side by side: paired where the images are the same, and said where they are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from dpmed.errors import UserError
from dpmed.report.compare import _without_common_words, compare
from tests.report.test_page import Page


@pytest.fixture
def pair(small_run: Path, tmp_path: Path, edit_json: Callable[..., None]) -> tuple[Path, Path]:
    """A private run and its twin without DP, which ranks the same images a little better."""
    twin = Path(shutil.copytree(small_run, tmp_path / "twin"))
    edit_json(twin / "plan.json", enabled=False, private=False, epsilon=None)
    for split in ("test", "validation"):
        path = twin / "predictions" / f"{split}.parquet"
        table = pd.read_parquet(path)
        table["prob_pneumonia"] = 0.7 * table["prob_pneumonia"] + 0.3 * table["label_pneumonia"]
        table.to_parquet(path)
    return small_run, twin


def test_twin_without_dp_is_the_reference(pair: tuple[Path, Path], tmp_path: Path) -> None:
    private, twin = pair
    html = compare([private, twin], tmp_path / "page", num_bootstrap=200).read_text()
    page = Page(html)
    assert page.unbalanced == []
    assert "Each run minus twin" in page.text
    result = json.loads((tmp_path / "page" / "differences_run.json").read_text())
    for label in ("pneumonia", "atelectasis", "macro"):
        entry = result["auroc"][label]
        assert f"{entry['value']:.3f}".replace("-", "−") in page.text
    assert result["auroc"]["pneumonia"]["value"] < 0
    assert result["auroc"]["atelectasis"]["value"] == 0
    assert "No margin of equivalence was declared" in page.text
    assert "patient_id" not in json.dumps(result)


def test_other_images_are_not_compared_and_named_without_ids(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    private, twin = pair
    path = twin / "predictions" / "test.parquet"
    table = pd.read_parquet(path)
    table["image"] = "other_" + table["image"]
    table.to_parquet(path)
    page = Page(compare([private, twin], tmp_path / "page", num_bootstrap=200).read_text())
    assert "Not compared." in page.text
    assert "the image ids do not match" in page.text
    assert not [name for name in table["patient_id"].unique() if name in page.text]
    assert "Side by side" in page.text


def test_damaged_run_is_listed_and_the_others_stay(pair: tuple[Path, Path], tmp_path: Path) -> None:
    private, twin = pair
    (twin / "metrics.json").write_text("{")
    page = Page(compare([private, twin], tmp_path / "page", num_bootstrap=200).read_text())
    assert page.unbalanced == []
    assert "metrics.json cannot be read" in page.text


def test_runs_of_one_name_are_told_apart(pair: tuple[Path, Path], tmp_path: Path) -> None:
    private, twin = pair
    folders = [tmp_path / name / "seed=0" for name in ("a", "b")]
    for source, folder in zip((private, twin), folders, strict=True):
        shutil.copytree(source, folder)
    page = Page(compare(folders, tmp_path / "page", num_bootstrap=200).read_text())
    assert "a/seed=0" in page.text
    assert "Each run minus b/seed=0" in page.text


def test_comparing_needs_two_runs(small_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two different runs"):
        compare([small_run, small_run], tmp_path / "page")
    with pytest.raises(UserError, match="is no folder"):
        compare([small_run, tmp_path / "missing"], tmp_path / "page")


def test_names_of_a_sweep_lose_what_all_runs_share() -> None:
    named = {f"epsilon={epsilon},seed=0": Path(str(epsilon)) for epsilon in (1, 8)}
    assert set(_without_common_words(named)) == {"epsilon=1", "epsilon=8"}
    shorter = {"seed=0": Path("a"), "epsilon=1,seed=0": Path("b")}
    assert _without_common_words(shorter) == shorter
