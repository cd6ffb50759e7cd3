import hashlib
import logging

import numpy as np
import pandas as pd
import pytest

from dpmed.data import (
    assign_splits,
    check_splits,
    find_duplicate_images,
    split_hash,
    subsample_patients,
    validate_table,
    write_splits,
)
from dpmed.data.pixel_hash import pixel_hash
from dpmed.errors import UserError

FRACTIONS = {"validation_fraction": 0.1, "test_fraction": 0.2, "salt": "one"}


def table_of(num_patients, images_each=2, **columns):
    patients = np.repeat(np.arange(num_patients), images_each)
    return validate_table(
        pd.DataFrame(
            {
                "image": [f"{row}.png" for row in range(len(patients))],
                "patient_id": [f"p{patient}" for patient in patients],
                **columns,
            }
        )
    )


def test_patients_stay_whole_and_fractions_hold():
    # 4,000 patients: the binomial standard deviation of a share is at most .0064, so the
    # tolerance of .03 fails falsely with probability below 1e-5; the hash is fixed anyway.
    table = assign_splits(table_of(4000), **FRACTIONS)
    assert table.groupby("patient_id")["split"].nunique().max() == 1
    shares = table["split"].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.2, abs=0.03)
    assert shares["validation"] == pytest.approx(0.1, abs=0.03)


def test_one_patient_never_moves_another():
    table = table_of(300)
    everyone = assign_splits(table, **FRACTIONS).set_index("image")["split"]
    for leave_out in ("p0", "p17", "p299"):
        rest = table[table["patient_id"] != leave_out].sample(frac=1, random_state=3)
        split = assign_splits(rest.reset_index(drop=True), **FRACTIONS).set_index("image")["split"]
        assert (split == everyone.loc[split.index]).all()


def test_the_salt_matters_and_the_result_is_stable():
    first = assign_splits(table_of(300), **FRACTIONS)["split"]
    assert (first == assign_splits(table_of(300), **FRACTIONS)["split"]).all()
    other = assign_splits(table_of(300), **{**FRACTIONS, "salt": "two"})["split"]
    assert 0.1 < (first != other).mean() < 0.9


def test_official_splits_are_kept_and_validation_comes_from_train():
    official = ["train"] * 1600 + ["test"] * 400
    table = assign_splits(table_of(1000, split=official), **FRACTIONS)
    assert (table["split"][1600:] == "test").all()
    train = table[:1600]
    assert set(train["split"]) == {"train", "validation"}
    assert (train["split"] == "validation").mean() == pytest.approx(0.1, abs=0.04)
    check_splits(table)


def test_official_validation_is_left_alone():
    official = ["train"] * 100 + ["validation"] * 100 + ["test"] * 100
    table = assign_splits(table_of(150, split=official), **FRACTIONS)
    assert table["split"].tolist() == official


def test_rows_outside_the_official_lists_join_their_patient():
    official = ["test", None] * 50 + ["train"] * 100 + [None] * 20
    table = assign_splits(table_of(110, split=official), **FRACTIONS)
    assert (table["split"][:100] == "test").all()
    assert set(table["split"][200:]) <= {"train", "validation"}
    assert "70 images were in no official split" in table.attrs["notes"]


def test_without_patient_ids_the_image_is_hashed():
    table = table_of(500)
    table["patient_id"] = pd.Series([np.nan] * len(table), dtype="str")
    table = assign_splits(table, **FRACTIONS)
    assert (table["split"][::2].to_numpy() != table["split"][1::2].to_numpy()).any()
    assert len(split_hash(table)) == 64


def test_a_patient_in_two_splits():
    official = ["train", "test"] * 8
    with pytest.raises(UserError, match=r"8 patients are in two splits .p0, p1.*\.\.\."):
        assign_splits(table_of(8, split=official), **FRACTIONS)
    with pytest.raises(UserError, match="1 patient is in two splits"):
        check_splits(table_of(1, split=["train", "test"]))


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [(-0.1, 0.2, "validation_fraction=-0.1"), (0, 1, "test_fraction=1"), (0.5, 0.5, "no patients")],
)
def test_impossible_fractions(validation, test, message):
    with pytest.raises(UserError, match=message):
        assign_splits(table_of(3), validation_fraction=validation, test_fraction=test, salt="one")


def test_the_hash_is_that_of_the_file(tmp_path):
    table = assign_splits(table_of(50), **FRACTIONS)
    written = write_splits(table, tmp_path / "splits.csv")
    assert written == hashlib.sha256((tmp_path / "splits.csv").read_bytes()).hexdigest()
    assert written == split_hash(table) == split_hash(table.sample(frac=1, random_state=0))
    moved = table.assign(split=table["split"].mask(table.index == 0, "test"))
    moved["split"] = moved["split"].mask(moved.index == 0, "validation")
    assert split_hash(moved) != written
    again = pd.read_csv(tmp_path / "splits.csv", dtype=str)
    assert list(again.columns) == ["image", "patient_id", "split"]


def test_same_pixels_under_two_patients(caplog):
    table = table_of(3, split=["train"] * 4 + ["test"] * 2)
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    images[1] = images[0]  # one patient twice: no alarm
    images[4] = images[2]
    hashes = [pixel_hash(image) for image in images]
    with caplog.at_level(logging.WARNING):
        (duplicate,) = find_duplicate_images(table, hashes)
    assert (duplicate.image, duplicate.other_image) == ("4.png", "2.png")
    assert (duplicate.patient_id, duplicate.other_patient_id) == ("p2", "p1")
    assert duplicate.in_two_splits
    assert "1 images have the same pixels" in caplog.text
    assert "p1" not in caplog.text


def test_pixel_hash_sees_shape_and_type():
    flat = np.zeros(16, dtype=np.uint8)
    assert pixel_hash(flat.reshape(4, 4)) != pixel_hash(flat.reshape(2, 8))
    assert pixel_hash(flat.reshape(4, 4).T) == pixel_hash(flat.reshape(4, 4))
    assert pixel_hash(flat) != pixel_hash(flat.astype(np.int8))


def test_subsample_is_by_patient_and_nested():
    table = table_of(2000)
    half = subsample_patients(table, fraction=0.5, salt="one")
    tenth = subsample_patients(table, fraction=0.1, salt="one")
    assert set(tenth["patient_id"]) < set(half["patient_id"])
    assert half["patient_id"].nunique() == pytest.approx(1000, abs=100)
    assert (half.groupby("patient_id").size() == 2).all()
    assert len(subsample_patients(table, fraction=1.0, salt="one")) == len(table)


def test_subsample_does_not_follow_the_splits():
    table = assign_splits(table_of(2000), **FRACTIONS)
    half = subsample_patients(table, fraction=0.5, salt="one")
    assert (half["split"] == "test").mean() == pytest.approx(0.2, abs=0.05)


def test_subsample_refuses_impossible_fractions():
    for fraction in (0, -1, 1.5):
        with pytest.raises(UserError, match=f"data.fraction={fraction}"):
            subsample_patients(table_of(3), fraction=fraction, salt="one")
    with pytest.raises(UserError, match="leaves none"):
        subsample_patients(table_of(3), fraction=1e-9, salt="one")
