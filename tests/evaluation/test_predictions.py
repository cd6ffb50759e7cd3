"""The predictions file: written whole or not at all, read back the same, bad tables named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dpmed.errors import UserError
from dpmed.evaluation.predictions import (
    label_column,
    label_names,
    make_predictions,
    match_predictions,
    read_predictions,
    validate_predictions,
    write_predictions,
)

LABELS = ("pneumonia", "no_finding")


def test_a_written_table_is_read_back_the_same(cohort, tmp_path):
    table = cohort()
    table.loc[:9, "label_pneumonia"] = np.nan
    table.loc[:4, "age"] = np.nan
    table.loc[5:6, "sex"] = None
    path = write_predictions(table, tmp_path / "predictions" / "test.parquet")
    found = read_predictions(path, labels=LABELS)
    assert label_names(found) == list(LABELS)
    assert found["prob_pneumonia"].dtype == np.float32
    assert found.shape == table.shape
    for column in table.columns:
        np.testing.assert_array_equal(found[column].isna(), table[column].isna())
        known = table[column].notna()
        assert (found[column][known] == table[column][known]).all()


def test_a_failed_write_leaves_the_old_file(cohort, tmp_path, monkeypatch):
    path = write_predictions(cohort(), tmp_path / "test.parquet")
    before = path.read_bytes()

    def full_disk(table, file):
        file.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dpmed.evaluation.predictions.pq.write_table", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_predictions(cohort(seed=9), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_study_table_and_probabilities_become_predictions():
    study = pd.DataFrame(
        {
            "image": ["a.png", "b.png"],
            "patient_id": ["1", "2"],
            "scanner": ["x", "y"],
            "pneumonia": [1.0, np.nan],
        }
    )
    made = make_predictions(study, np.array([[0.25], [0.5]]), labels=["pneumonia"])
    assert list(made.columns[:7]) == [
        "image",
        "patient_id",
        "sex",
        "age",
        "view",
        "site",
        "split",
    ]
    assert made["scanner"].tolist() == ["x", "y"]
    assert made["sex"].isna().all()
    assert "pneumonia" not in made.columns
    validate_predictions(made, labels=["pneumonia"])
    with pytest.raises(UserError, match=r"shape \(1, 2\).*\(2, 1\)"):
        make_predictions(study, np.zeros((1, 2)), labels=["pneumonia"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.drop(columns="prob_pneumonia"), "column 'prob_pneumonia' is missing"),
        (lambda t: t.rename(columns={"patient_id": "patient"}), "Did you mean 'patient'"),
        (lambda t: t.assign(image="same.png"), "599 images occur twice, such as same.png"),
        (lambda t: t.assign(patient_id=None), "600 rows have no patient_id"),
        (lambda t: t.assign(label_pneumonia=0.5), "600 values of label_pneumonia"),
        (lambda t: t.assign(prob_pneumonia=1.5), r"600 values of prob_pneumonia.*in \[0, 1\]"),
        (lambda t: t.assign(prob_pneumonia="high"), "not numeric"),
        (lambda t: t.iloc[:0], "0 rows"),
    ],
)
def test_a_bad_table_is_refused_by_name(cohort, spoil, message):
    with pytest.raises(UserError, match=message):
        validate_predictions(spoil(cohort()), labels=LABELS, source="test predictions")


def test_missing_and_truncated_files_are_named(cohort, tmp_path):
    with pytest.raises(UserError, match="no predictions at"):
        read_predictions(tmp_path / "test.parquet")
    path = write_predictions(cohort(), tmp_path / "test.parquet")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"test\.parquet cannot be read.*truncated"):
        read_predictions(path)


def test_predictions_are_put_into_the_order_of_the_images(cohort):
    table = cohort()
    shuffled = table.sample(frac=1, random_state=0)
    matched = match_predictions(shuffled, table["image"])
    pd.testing.assert_frame_equal(matched, table)
    with pytest.raises(UserError, match=r"1 have no prediction \(such as new\.png\); 600 predic"):
        match_predictions(table, ["new.png"])


def test_nan_scores_are_a_reason_and_nan_labels_are_not(cohort):
    table = cohort()
    table.loc[:9, "label_pneumonia"] = np.nan
    table.loc[:9, "prob_pneumonia"] = np.nan
    column = label_column(table, "pneumonia")
    assert column.reason is None
    assert column.known_N.sum() == 590
    table.loc[10, "prob_pneumonia"] = np.inf
    assert label_column(table, "pneumonia").reason == "1 of 590 scores are not finite"
