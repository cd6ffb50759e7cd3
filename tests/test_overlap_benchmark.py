"""The overlap benchmark keeps its controls apart from the corpus and from tuned patients."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.overlap import SPLIT_SEED, TUNING_SHARE, Source, _false_flags, _final_patients


def test_controls_share_no_patient_with_corpus_or_tuning() -> None:
    pixels = np.zeros((2, 2), np.uint8)
    sources = [
        Source(
            collection="kermany", name=f"{patient}/{view}", patient=f"k-{patient}", pixels=pixels
        )
        for patient in range(100)
        for view in range(3)
    ]
    controls, searched = _final_patients(sources, 61)
    patients = np.array(sorted({source.patient for source in sources}))
    np.random.default_rng(SPLIT_SEED).shuffle(patients)
    tuned = set(patients[: int(100 * TUNING_SHARE)])
    used, others = {s.patient for s in controls}, {s.patient for s in searched}
    assert len(controls) == 61
    assert not used & others
    assert not tuned & (used | others)


def test_true_duplicates_are_left_out_of_both_counts() -> None:
    pixels = np.zeros((2, 2), np.uint8)
    controls = [
        Source(collection="kermany", name=name, patient=name, pixels=pixels) for name in "abcd"
    ]
    listed = pd.DataFrame({"control": ["a", "b", "b"]})
    rate, cleared = _false_flags(listed, pd.Series([True, False, False]), controls)
    assert (rate["count"], rate["total"], cleared["value"]) == (1, 3, 1)
