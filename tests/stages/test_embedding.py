"""Which patients are embedded: the private probe is fitted on them, so none may move another."""

from __future__ import annotations

import pandas as pd

from dpmed.stages.embedding import chosen_rows

NUM_PATIENTS = 300


def _table(patients: list[int]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": [f"p{patient}-{view}.png" for patient in patients for view in (0, 1)],
            "patient_id": [f"p{patient}" for patient in patients for _ in (0, 1)],
            "split": "train",
        }
    )


def _chosen(patients: list[int]) -> set[str]:
    table = _table(patients)
    rows = chosen_rows(table, "train", most=100, num_units=NUM_PATIENTS)
    return set(table["image"].iloc[rows])


def test_removing_a_patient_changes_no_other_patients_place() -> None:
    everyone = list(range(NUM_PATIENTS))
    before = _chosen(everyone)
    # Binomial(300, 1/3) patients with two images each: 100 +- 8; five deviations below 1e-6.
    assert 2 * 60 < len(before) < 2 * 140
    for kept in (everyone[1:], everyone[::2], everyone[:20]):
        images = set(_table(kept)["image"])
        assert _chosen(kept) == before & images


def test_all_patients_are_embedded_where_there_are_fewer() -> None:
    assert list(chosen_rows(_table([1, 2, 3]), "train", most=5, num_units=3)) == list(range(6))
    assert list(chosen_rows(_table([1, 2, 3]), "train", most=None, num_units=9)) == list(range(6))
