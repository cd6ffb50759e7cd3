"""A seeded cohort with several images a patient, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

LABELS = ("pneumonia", "no_finding")


def make_cohort(
    *,
    num_patients: int = 200,
    images_each: int = 3,
    seed: int = 0,
    signal: float = 1.0,
    split: str = "test",
    labels: tuple[str, ...] = LABELS,
) -> pd.DataFrame:
    """Predictions whose scores rise with the truth, with a shared part within each patient."""
    generator = np.random.default_rng(seed)
    size = num_patients * images_each
    patient = np.repeat(np.arange(num_patients), images_each)
    columns = {
        "image": [f"{split}-{index:05d}.png" for index in range(size)],
        "patient_id": [f"{split}-p{index:04d}" for index in patient],
        "sex": np.where(generator.random(num_patients) < 0.5, "F", "M")[patient],
        "age": generator.integers(18, 95, num_patients).astype(float)[patient],
        "view": generator.choice(["PA", "AP"], size),
        "site": generator.choice(["north", "south"], num_patients)[patient],
        "split": split,
    }
    for label in labels:
        truth = (generator.random(num_patients) < 0.4)[patient]
        shared = generator.normal(size=num_patients)[patient]
        score = signal * truth + 0.7 * shared + 0.7 * generator.normal(size=size)
        columns[f"label_{label}"] = truth.astype(np.float32)
        columns[f"prob_{label}"] = (1 / (1 + np.exp(-score))).astype(np.float32)
    return pd.DataFrame(columns)


@pytest.fixture(scope="session")
def cohort() -> Callable[..., pd.DataFrame]:
    """The function that makes a cohort."""
    return make_cohort
