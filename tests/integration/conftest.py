"""Runs of the real program on a small cohort: a user's code, shrunk by settings alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SMALL = [
    "model.name=test_convnext",
    "init=scratch",
    "data.num_patients=150",
    "data.preprocessing.image_size=32",
    "privacy.expected_batch_size=16",
    "performance.physical_batch_size=8",
    "performance.num_threads=1",
    "performance.num_workers=0",
    "training.num_steps=6",
    "training.warmup_steps=1",
    "training.checkpoint_every_steps=2",
    "evaluation.num_bootstrap=200",
    "evaluation.min_positives=2",
    "evaluation.min_negatives=2",
    "evaluation.intersections=false",
]
KEY = "privacy.injected_key=" + "ab" * 32

Train = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Runs `python train.py SMALL words...` in a folder of its own; returns the ended process."""

    def run(
        *words: str, small: bool = True, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        process = subprocess.run(
            command(*words, small=small), cwd=tmp_path, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False,
        )  # fmt: skip
        assert not check or process.returncode == 0, process.stdout
        return process

    return run


def command(*words: str, small: bool = True) -> list[str]:
    """The words of a shrunken training; flags come first, as Hydra wants them."""
    flags = [word for word in words if word.startswith("-")]
    settings = [word for word in words if not word.startswith("-")]
    return [sys.executable, str(ROOT / "train.py"), *flags, *(SMALL if small else []), *settings]


def environment() -> dict[str, str]:
    """One thread, and the package from this checkout."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"}
