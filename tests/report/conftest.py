"""A run folder made from the file contracts without training: invented scores, truly evaluated."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.optimize import brentq
from scipy.stats import norm

from dpmed.evaluation.metrics import evaluate, write_metrics

LABELS = ("atelectasis", "cardiomegaly", "pleural_effusion", "pneumonia", "no_finding")


def make_predictions(split: str, *, num_patients: int, seed: int, signal: float) -> pd.DataFrame:
    """Invented patients with one to four images; scores separate the labels by `signal`."""
    rng = np.random.default_rng(seed)
    images_of = rng.integers(1, 5, size=num_patients)
    patients = np.repeat(np.arange(num_patients), images_of)
    num_images = len(patients)
    table = pd.DataFrame(
        {
            "image": [f"SECRETPATIENT{p:04d}_{i:03d}.png" for i, p in enumerate(patients)],
            "patient_id": [f"SECRETPATIENT{p:04d}" for p in patients],
            "sex": rng.choice(["F", "M"], size=num_patients)[patients],
            "age": rng.integers(18, 95, size=num_patients)[patients].astype(float),
            "view": rng.choice(["PA", "AP"], size=num_images, p=[0.7, 0.3]),
            "site": rng.choice(
                ["harbour", "hill", "river"], size=num_patients, p=[0.6, 0.35, 0.05]
            )[patients],
            "split": split,
        }
    )
    weaker = np.where(table["view"] == "AP", 0.7, 1.0)
    for index, label in enumerate(LABELS):
        truth = (rng.random(num_images) < 0.12 + 0.05 * index).astype(np.float32)
        score = signal * (1 + 0.12 * index) * weaker * truth + rng.normal(size=num_images)
        truth[rng.random(num_images) < 0.03] = np.nan
        table[f"label_{label}"] = truth
        table[f"prob_{label}"] = (1 / (1 + np.exp(1.5 - score))).astype(np.float32)
    return table


def gaussian_delta(epsilon: np.ndarray | float, mu: float) -> np.ndarray:
    """Delta of the mu-Gaussian mechanism at each epsilon."""
    return norm.cdf(-epsilon / mu + mu / 2) - np.exp(epsilon) * norm.cdf(-epsilon / mu - mu / 2)


def make_plan(*, epsilon: float | None = 8.0, private: bool = True, unit: str = "patient") -> dict:
    """A plan of the published schema with invented but consistent numbers; None is without DP."""
    num_steps = 400
    mu = brentq(lambda mu: gaussian_delta(epsilon or 1.0, mu) - 6e-6, 0.01, 50)
    grid = np.linspace(0, 1.3 * epsilon, 101) if epsilon is not None else np.array([])
    delta = gaussian_delta(grid, mu)
    steps = [int(step) for step in np.linspace(1, num_steps, 40)] if epsilon is not None else []
    return {
        "enabled": epsilon is not None,
        "private": private and epsilon is not None,
        "unit": unit,
        "adjacency": "add_or_remove_one_unit",
        "target_epsilon": epsilon,
        "epsilon": None if epsilon is None else epsilon * 0.9999,
        "delta": 1.0 if epsilon is None else 6e-6,
        "num_units": 4000,
        "num_units_origin": "declared by privacy.num_units",
        "expected_batch_size": 128,
        "sample_rate": 128 / 4000,
        "num_steps": num_steps,
        "noise_multiplier": 0.75739 if epsilon is not None else 0.0,
        "noise_scale": 1.0,
        "noise_standard_deviation": 0.7575 if epsilon is not None else 0.0,
        "max_grad_norm": None if epsilon is None else 1.0,
        "sensitivity": None if epsilon is None else 1.0001,
        "precision_slack": 1e-4,
        "clipping_rule": "flat" if epsilon is not None else "none",
        "views_per_unit": 1,
        "epsilon_second_opinion": None if epsilon is None else epsilon + 0.01,
        "mu": None if epsilon is None else mu,
        "mu_regret": 0.0,
        "membership_accuracy": 1.0 if epsilon is None else float(0.5 + 0.5 * delta[0]),
        "epsilon_over_steps": [
            [step, 0.9999 * (epsilon or 0) * (0.22 + 0.78 * (step / num_steps) ** 0.6)]
            for step in steps
        ],
        "delta_over_epsilon": [
            [float(e), float(max(d, 6e-8))] for e, d in zip(grid, delta, strict=True)
        ],
        "patient_epsilon": [[2, 17.74], [5, 54.79]] if unit == "image" else [],
        "accountant": "pld" if epsilon is not None else "none",
        "sampling": "poisson",
        "randomness": "AES-256-CTR under a 256-bit key from the operating system",
        "tuning_included": False,
        "plan_hash": "84abffced1e4e8a0",
        "content_hash": "0c1d2e3f40516273",
        "covered": ["What is learnt of every training patient."] if private and epsilon else [],
        "not_covered": ["Evaluation results and thresholds.", "Validation and test patients."],
        "notes": [],
        "statement": "NOT PRIVATE: this run trains without differential privacy."
        if epsilon is None
        else f"Promise: the released weights are differentially private: epsilon {epsilon:g} at "
        "delta 6e-06 (adding or removing one patient).\nMeaning: someone who guesses is right at "
        "most 88.5 % of the time.\nCovered: listed.\nNot covered: listed.\n"
        "Numerical caveat: the proof is about Gaussian noise in real numbers.",
    }


def make_geometry() -> dict:
    """Geometry as `dpmed.evaluation.representation` names it, with invented values."""
    names = ("displacement", "linear_cka", "effective_dimension", "initial_effective_dimension")
    utilities = ("probe_utility", "end_to_end_utility", "private_probe_utility")
    utilities += tuple(f"initial_{name}" for name in utilities[:2])
    counts = {"num_images": 412, "num_patients": 160}
    cases = {"num_positive": 40, "num_negative": 372}

    def of(start: float) -> dict:
        return {
            name: {"value": start + i, "ci_low": start + i - 0.25, "ci_high": start + i + 0.125}
            | counts
            for i, name in enumerate(names)
        }

    return {
        **of(0.75),
        **{
            name: {"value": 0.7 + i / 64, "ci_low": 0.6, "ci_high": 0.9, **cases}
            for i, name in enumerate(utilities)
        },
        "stages": {f"stage {stage}": of(0.5 + stage / 8) for stage in range(1, 5)},
        "subgroups": {"sex": {"F": of(0.8125), "M": of(0.9375)}},
        "private_probe": {"epsilon": 8.0, "delta": 1e-5, "unit": "patient"},
    }


def write_run(
    folder: Path,
    *,
    epsilon: float | None = 8.0,
    private: bool = True,
    seed: int = 0,
    signal: float = 1.4,
    num_patients: int = 160,
    init: str = "scratch",
    subgroups: tuple[str, ...] = ("sex", "age", "view", "site"),
    intersections: bool = False,
) -> Path:
    """Writes every file of a finished run that the report reads."""
    (folder / "predictions").mkdir(parents=True)
    tables = {
        "validation": make_predictions(
            "validation", num_patients=80, seed=seed + 1000, signal=signal
        ),
        "test": make_predictions("test", num_patients=num_patients, seed=seed, signal=signal),
    }
    for name, table in tables.items():
        table.to_parquet(folder / "predictions" / f"{name}.parquet")
    pd.concat(tables.values())[["image", "patient_id", "split"]].to_csv(
        folder / "splits.csv", index=False
    )
    metrics = evaluate(
        tables,
        labels=LABELS,
        subgroups=subgroups,
        num_bootstrap=200,
        intersections=intersections,
        geometry=make_geometry(),
    )
    write_metrics(metrics, folder / "metrics.json")
    plan = make_plan(epsilon=epsilon, private=private)
    _write_json(folder / "plan.json", plan)
    _write_json(folder / "run.json", _run_record(init))
    _write_json(folder / "data_sheet.json", _data_sheet(tables))
    (folder / "config.yaml").write_text(yaml.safe_dump(_config(epsilon, seed, init)))
    if epsilon is not None:
        entry = {"run_id": "cxr-0", "key_id": "ab12", "time": "2025-01-02T03:04:05+00:00"}
        entries = [{**entry, "step": step} for step in range(400)]
        (folder / "ledger.jsonl").write_text("\n".join(json.dumps(entry) for entry in entries))
    (folder / "contact_sheet.png").write_bytes(grey_png(96, 64))
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished private run; never written to (see `run_dir`)."""
    return write_run(tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture
def run_dir(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may damage."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def small_run(run_dir: Path) -> Path:
    """A copy with few groups and images, quick to draw, for tests of what surrounds the plots."""
    metrics = json.loads((run_dir / "metrics.json").read_text())
    test = metrics["splits"]["test"]
    test["subgroups"] = {"sex": test["subgroups"]["sex"]}
    _write_json(run_dir / "metrics.json", metrics)
    for path in (run_dir / "predictions").iterdir():
        pd.read_parquet(path).head(60).to_parquet(path)
    return run_dir


@pytest.fixture
def edit_json() -> Callable[..., None]:
    """Changes fields of a JSON file in place."""

    def edit(path: Path, **fields: object) -> None:
        content = json.loads(path.read_text())
        _write_json(path, {**content, **fields})

    return edit


def grey_png(width: int, height: int) -> bytes:
    """A small valid greyscale PNG."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    rows = b"".join(b"\x00" + bytes((x * y) % 256 for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _run_record(init: str) -> dict:
    return {
        "status": "completed",
        "experiment": "cxr_eps8",
        "run_id": "cxr-0",
        "code_version": "0.1.0+abc123def456",
        "config_hash": "0123456789abcdef",
        "split_hash": "fedcba9876543210",
        "versions": {"torch": "2.15.0", "opacus": "1.6.0", "timm": "1.0.31"},
        "device": "cpu",
        "threads": 2,
        "precision": "32-true",
        "clipping_engine": "onepass",
        "clipping_proof": "4 units: the clipped sum agrees with a loop over single units.",
        "budget": {
            "epsilon": 11.2,
            "delta": 6e-6,
            "num_steps": 800,
            "run_ids": ["cxr-0", "cxr-1"],
            "not_private_run_ids": [],
        },
        "model": "convnext_atto",
        "image_size": 64,
        "num_parameters": 3370000,
        "num_trainable": 3370000,
        "trainable": "full",
        "init": {"source": init, "architecture": "convnext_atto", "data_sets": [], "num_loaded": 0},
        "seconds": {"planning": 3.2, "data": 8.1, "training": 241.7, "evaluation": 12.9},
        "steps_done": 400,
        "skipped_images": [],
        "warnings": ["2 images have the same pixels under two patients."],
        "started": "2025-01-02T03:04:05+00:00",
        "finished": "2025-01-02T03:09:05+00:00",
    }


def _config(epsilon: float | None, seed: int, init: str) -> dict:
    return {
        "name": "cxr_eps8",
        "seed": seed,
        "data": {"id": "synthetic", "reader": "synthetic", "labels": list(LABELS)},
        "model": {"name": "convnext_atto"},
        "init": {"source": init},
        "privacy": {"enabled": epsilon is not None, "epsilon": epsilon, "injected_key": None},
        "training": {"num_steps": 400, "optimizer": "adamw", "learning_rate": 0.001,
                     "schedule": "cosine"},
    }  # fmt: skip


def _data_sheet(tables: dict[str, pd.DataFrame]) -> dict:
    return {
        "name": "synthetic chest radiographs",
        "synthetic": True,
        "notes": ["17 impossible ages turned into missing"],
        "splits": {name: _describe(table) for name, table in tables.items()},
        "preprocessing": {"image_size": 64, "intensity": "minmax"},
        "num_skipped": 0,
    }


def _describe(table: pd.DataFrame) -> dict:
    counts = {name: table[name].value_counts().to_dict() for name in ("sex", "view", "site")}
    return {
        "num_patients": int(table["patient_id"].nunique()),
        "num_images": len(table),
        "prevalence": {
            label: {
                "positive": int((table[f"label_{label}"] == 1).sum()),
                "negative": int((table[f"label_{label}"] == 0).sum()),
                "missing": int(table[f"label_{label}"].isna().sum()),
            }
            for label in LABELS
        },
        "age": {"mean": 56.1, "median": 55.0, "missing": 0, "groups": {"18-39": 60, "65+": 80}},
        **counts,
    }
