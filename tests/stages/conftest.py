"""A finished run on real files, made in this process: a manifest of drawn radiographs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dpmed import data
from dpmed.compose import compose
from dpmed.config import RunConfig
from dpmed.pipeline import run
from dpmed.privacy.plan import make_plan

LABELS = ["cardiomegaly", "no_finding"]
SMALL = [
    "privacy=none",
    "init=scratch",
    "model.name=test_convnext",
    "data.preprocessing.image_size=32",
    "privacy.num_units=60",
    "privacy.expected_batch_size=8",
    "performance.physical_batch_size=8",
    "performance.num_threads=0",
    "performance.num_workers=0",
    "training.num_steps=2",
    "training.warmup_steps=1",
    "evaluation.num_bootstrap=200",
    "evaluation.embeddings=false",
    "evaluation.subgroups=[sex]",
    "evaluation.intersections=false",
    "evaluation.min_positives=2",
    "evaluation.min_negatives=2",
]


def write_hospital(
    folder: Path, *, site: str, num_patients: int, labels: list[str] = LABELS
) -> list[str]:
    """Draws a hospital's images and table; returns the words that name it on a command line."""
    table = data.synthetic_cohort(num_patients=num_patients, seed=5, sites=[site])
    table["image"] = [f"{site}_{row:04d}.png" for row in range(len(table))]
    table["patient_id"] = f"{site}-" + table["patient_id"]
    images = data.render_radiographs(
        data.synthetic_cohort(num_patients=num_patients, seed=5, sites=[site]),
        seed=5,
        image_size=48,
        num_workers=1,
    )
    folder.mkdir(parents=True)
    for name, image in zip(table["image"], images, strict=True):
        Image.fromarray(image).save(folder / name)
    columns = ["image", "patient_id", "sex", "age", "site", *labels]
    table[columns].to_csv(folder / "table.csv", index=False)
    return [
        "data=manifest",
        f"data.id={site}",
        f"data.path={folder / 'table.csv'}",
        f"data.labels=[{','.join(labels)}]",
        "data.columns.sex=sex",
        "data.columns.age=age",
        "data.columns.site=site",
        "data.validation_fraction=0.2",
        "data.test_fraction=0.3",
        f"data.cache_dir={folder / 'cache'}",
    ]


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words of the data set that `finished_run` was trained on."""
    folder = tmp_path_factory.mktemp("hospitals") / "university"
    return write_hospital(folder, site="university", num_patients=90)


@pytest.fixture(scope="session")
def run_config(hospital: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    ledger = tmp_path_factory.mktemp("ledger")
    return compose([*SMALL, *hospital, f"privacy.ledger_dir={ledger}"])


@pytest.fixture(scope="session")
def finished_run(run_config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A completed run without DP; a test that changes its files works on a copy."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(run_config, run_dir=folder)
    return folder


@pytest.fixture(scope="session")
def private_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `plan.json` of a run of two steps under epsilon 8."""
    plan = make_plan(
        unit="patient",
        target_epsilon=8.0,
        delta=1e-5,
        num_units=60,
        num_units_origin="declared",
        expected_batch_size=8,
        num_steps=2,
        max_grad_norm=1.0,
        sensitivity=1.0,
        precision_slack=0.0,
        clipping_rule="flat",
        views_per_unit=1,
        noise_scale=1.0,
        injected_key=False,
    )
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    plan.to_json(path)
    return path


def change(path: Path, **fields: object) -> None:
    """Sets fields of a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | fields), encoding="utf-8")


def patients_of(run_dir: Path) -> np.ndarray:
    """Every patient id and image name of a run."""
    table = pd.read_csv(run_dir / "splits.csv", dtype=str)
    return np.unique(table[["patient_id", "image"]].to_numpy().ravel())
