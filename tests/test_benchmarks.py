"""The benchmark program runs, writes the promised fields, and goes on where it stopped."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import clipping_tables, loading, variants
from benchmarks.clipping import median_interval, time_interleaved
from benchmarks.variants import DEFAULT_VARIANTS, VARIANTS, Setting

FIELDS = {
    "model",
    "pixels",
    "batch",
    "dtype",
    "device",
    "threads",
    "variant",
    "milliseconds",
    "ratio_to_plain",
    "ratio_low",
    "ratio_high",
    "peak_bytes_above_base",
    "versions",
}


def run(path: Path) -> str:
    command = [
        *(sys.executable, "-m", "benchmarks.clipping", "--models", "test_convnext"),
        *("--pixels", "32", "--batch", "2", "--rounds", "2", "--threads", "1"),
        *("--variants", "plain", "onepass", "--json", str(path)),
    ]
    root = Path(__file__).parents[1]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout


def test_the_program_writes_rows_and_does_not_measure_twice(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    table = run(path)
    rows = json.loads(path.read_text())
    assert [row["variant"] for row in rows] == ["plain", "onepass"]
    assert all(set(row) >= FIELDS for row in rows)
    assert rows[0]["ratio_to_plain"] == 1.0
    assert all(row["peak_bytes_above_base"] > 0 for row in rows)
    assert "| test_convnext | 32 | 2 | float32 | onepass |" in table
    assert run(path) == table
    assert json.loads(path.read_text()) == rows


def test_the_documents_show_the_recorded_tables() -> None:
    root = Path(__file__).parents[1]
    rows = json.loads((root / "benchmarks" / "results" / "clipping.json").read_text())
    page, readme = (root / "docs" / "clipping.md").read_text(), (root / "README.md").read_text()
    assert clipping_tables.time_table(rows) in page
    assert clipping_tables.memory_table(rows) in page
    assert clipping_tables.short_table(rows) in readme


def test_the_loading_program_measures_every_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    for number in range(8):
        pixels = generator.integers(0, 256, (400, 400)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    json_file = tmp_path / "rows.json"
    words = ["--images", str(tmp_path), "--batch", "4", "--rounds", "2", "--pixels", "32"]
    monkeypatch.setattr("sys.argv", ["loading", *words, "--json", str(json_file), "--memory-sizes"])
    loading.main()
    rows = {row["variant"]: row for row in json.loads(json_file.read_text())}
    assert list(rows) == ["decode", "cached", "torchvision", "timm", "training"]
    assert rows["cached"]["ratio_to_decode"] > 5
    assert rows["decode"]["ratio_to_decode"] == 1
    assert all(row["low"] <= row["images_per_core_second"] <= row["high"] for row in rows.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_runs(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Traces as inductor does, without a minute of generating code.
    monkeypatch.setattr(variants, "BACKEND", "aot_eager")
    setting = Setting(model="test_convnext", pixels=32, batch=2, dtype="float32", device="cpu")
    seconds = time_interleaved(
        {variant: VARIANTS[variant](setting)}, num_rounds=1, limit_seconds=0.0, device="cpu"
    )
    assert len(seconds[variant]) == 1
    assert "onepass" in DEFAULT_VARIANTS


def test_the_interval_covers_the_median() -> None:
    # 25 draws, 2,000 seeds: coverage at least 95 %, fails by chance with probability below 1e-6
    # at the threshold of .925.
    generator = random.Random(0)
    covered = 0
    for _ in range(2000):
        low, high = median_interval([generator.random() for _ in range(25)])
        covered += low <= 0.5 <= high
    assert covered / 2000 > 0.925
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
