"""The geometry of a run from its files: the parts, and what a damaged file takes away."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from dpmed.evaluation.embeddings import EmbeddingWriter
from dpmed.evaluation.geometry import measure_geometry
from dpmed.evaluation.metrics import evaluate, write_metrics
from dpmed.evaluation.predictions import write_predictions
from dpmed.evaluation.representation import RepresentationFiles, measure_representation

LABELS = ("pneumonia", "no_finding")
DIMENSIONS = 6


def _write_embeddings(path, rows_ND):
    with EmbeddingWriter(path, num_images=len(rows_ND), num_features=rows_ND.shape[1]) as writer:
        writer.append(rows_ND)


@pytest.fixture
def run_dir(cohort, tmp_path):
    """Embeddings that know the labels, more of them after training; two stages are enough."""
    files = RepresentationFiles(tmp_path)
    tables = {split: cohort(seed=i, split=split) for i, split in enumerate(("train", "test"))}
    generator = np.random.default_rng(0)
    for encoder, signal in (("initial", 0.5), ("trained", 1.5)):
        for split, table in tables.items():
            rows_ND = generator.normal(size=(len(table), DIMENSIONS))
            rows_ND[:, 0] += signal * table["label_pneumonia"]
            _write_embeddings(files.embeddings(encoder, split), rows_ND)
            write_predictions(table, files.predictions(encoder, split))
            if split == "test":
                for stage in (1, 2):
                    _write_embeddings(files.embeddings(encoder, split, stage), rows_ND[:, :4])
    # The trained model predicts images that were not embedded too, in an order of its own.
    more = pd.concat([tables["test"], cohort(seed=5, split="other", num_patients=20)])
    write_predictions(more.iloc[::-1].reset_index(drop=True), files.predictions("trained", "test"))
    write_predictions(tables["test"], files.private_probe_predictions)
    files.private_probe_facts.write_text('{"epsilon": 8.0, "delta": 1e-5, "unit": "patient"}')
    return tmp_path


def _measure(run_dir, **options):
    settings = {"labels": LABELS, "subgroups": ("sex", "age"), "num_bootstrap": 50} | options
    return measure_representation(run_dir, **settings)


def test_every_part_comes_from_the_files_and_fits_the_schema(run_dir, cohort, tmp_path):
    found = _measure(run_dir)
    files = RepresentationFiles(run_dir)
    test = pd.read_parquet(files.predictions("initial", "test"))
    alone = measure_geometry(
        files.embeddings("initial", "test"),
        files.embeddings("trained", "test"),
        patient_ids=test["patient_id"].to_numpy(),
    )
    assert found["displacement"] == alone["displacement"]
    assert found["probe_utility"]["value"] > found["initial_probe_utility"]["value"] + 0.05
    gap = found["probe_utility"]["value"] - found["end_to_end_utility"]["value"]
    assert found["utilisation_gap"]["value"] == pytest.approx(gap)
    assert set(found["stages"]) == {"stage 1", "stage 2"}
    assert set(found["subgroups"]["sex"]) == {"F", "M"}
    num_images = sum(
        each["displacement"]["num_images"] for each in found["subgroups"]["sex"].values()
    )
    assert num_images == len(test)
    assert found["private_probe"]["epsilon"] == 8
    # The probe's table is the head's own here, so that its gap is exactly zero.
    assert found["private_probe_gap"]["value"] == 0
    assert "unavailable" not in found
    metrics = evaluate(
        {"test": cohort()}, labels=LABELS, subgroups=(), num_bootstrap=20, geometry=found
    )
    write_metrics(metrics, tmp_path / "metrics.json")


@pytest.mark.parametrize(
    ("name", "part", "reason"),
    [
        ("embeddings/trained_test.npy", "drift and spectra", "truncated"),
        ("embeddings/initial_train.npy", "utilities of the initial encoder", "truncated"),
        ("embeddings/trained_test_stage2.npy", "stages", "truncated"),
        ("embeddings/private_probe.json", "private probe", "cannot be read"),
        ("predictions/test.parquet", "utilities of the trained encoder", "cannot be read"),
    ],
)
def test_a_truncated_file_takes_its_part_and_leaves_the_rest(run_dir, name, part, reason):
    path = run_dir / name
    path.write_bytes(path.read_bytes()[:-10])
    found = _measure(run_dir, subgroups=())
    assert reason in found["unavailable"][part]
    assert path.name in found["unavailable"][part]
    assert any("value" in entry for entry in found.values() if isinstance(entry, dict))


def test_predictions_of_other_images_are_not_compared(run_dir, cohort):
    write_predictions(
        cohort(seed=9, split="elsewhere"),
        RepresentationFiles(run_dir).predictions("trained", "test"),
    )
    found = _measure(run_dir, subgroups=())
    assert "do not match" in found["unavailable"]["utilities of the trained encoder"]
    assert found["displacement"]["value"] > 0


def test_without_embeddings_there_is_no_geometry(tmp_path):
    assert _measure(tmp_path) == {}
    (tmp_path / "embeddings").mkdir()
    assert "no predictions" in _measure(tmp_path)["unavailable"]["representation"]


def test_a_run_is_measured_again_without_torch():
    code = "import sys, dpmed.rebuild; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
