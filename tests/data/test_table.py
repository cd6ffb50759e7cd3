import numpy as np
import pandas as pd
import pytest

from dpmed.data.attributes import clean_age, clean_sex
from dpmed.data.table import (
    COLUMNS,
    add_note,
    has_patient_ids,
    label_columns,
    require_columns,
    validate_table,
)
from dpmed.errors import UserError


def small_table(**columns):
    return pd.DataFrame({"image": ["a.png", "b.png", "c.png"], **columns})


def test_adds_standard_columns_and_keeps_the_contract_types():
    table = validate_table(small_table(pneumonia=[1, 0, None], patient_id=[7, 8, 9]))
    assert list(table.columns) == [*COLUMNS, "pneumonia"]
    assert table["pneumonia"].dtype == np.float32
    assert table["age"].dtype == np.float64
    assert table["patient_id"].tolist() == ["7", "8", "9"]
    assert table["sex"].isna().all()
    assert label_columns(table) == ["pneumonia"]


def test_missing_is_never_negative():
    table = validate_table(small_table(edema=["1", "", None], mass=[np.nan, 0.0, 1.0]))
    assert table["edema"].isna().tolist() == [False, True, True]
    assert table["mass"].isna().tolist() == [True, False, False]


def test_ids_with_gaps_do_not_become_decimals():
    table = validate_table(small_table(patient_id=[12.0, np.nan, 3.0]))
    assert table["patient_id"].tolist()[::2] == ["12", "3"]
    assert not has_patient_ids(table)
    assert has_patient_ids(validate_table(small_table(patient_id=["1", "1", "2"])))


def test_truth_values_are_labels():
    table = validate_table(small_table(edema=[True, False, True], mass=["True", "false", None]))
    assert table["edema"].tolist() == [1, 0, 1]
    assert table["mass"].tolist()[:2] == [1, 0]


def test_keeps_notes_apart_from_those_of_the_input():
    raw = small_table(edema=[1, 0, 1])
    raw.attrs["notes"] = ["one"]
    table = validate_table(raw)
    add_note(table, "two")
    assert table.attrs["notes"] == ["one", "two"]
    assert raw.attrs["notes"] == ["one"]


def test_rows_are_numbered_from_zero():
    raw = small_table(edema=[1, 0, 1]).iloc[[2, 0]]
    table = validate_table(raw)
    assert table.index.tolist() == [0, 1]
    assert table["image"].tolist() == ["c.png", "a.png"]


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        ({"edema": [1, 0, 1]}, ["oedema"], "lacks the label 'oedema'. Did you mean 'edema'"),
        ({"edema": [1, -1, 2]}, None, "2 rows: 2, 3; for example .*-1"),
        ({"edema": ["yes", "0", "1"]}, None, "must hold numbers .1 row: 1"),
        ({"sex": ["F", "W", "M"]}, None, "sex='W'"),
        ({"split": ["train", "valid", "test"]}, None, "split='valid'.*Did you mean"),
        ({"image": ["a", "b", "a"]}, None, "lists an image twice .1 row: 3"),
        ({"image": ["a", " ", "b"]}, None, "rows without an image .1 row: 2"),
    ],
)
def test_bad_values_are_named(columns, labels, message):
    with pytest.raises(UserError, match=message):
        validate_table(small_table(**columns), labels)


def test_no_image_column_and_no_rows():
    with pytest.raises(UserError, match=r"lacks the column 'image'. Did you mean 'images'"):
        validate_table(pd.DataFrame({"images": ["a"]}))
    with pytest.raises(UserError, match="no rows"):
        validate_table(pd.DataFrame({"image": []}))


def test_required_columns_lists_what_there_is():
    with pytest.raises(UserError, match=r"f.csv lacks the columns 'x', 'y'\. It has: z\."):
        require_columns(["z"], ["x", "y"], source="f.csv")


def test_sex_spellings():
    sex, notes = clean_sex(
        pd.Series(["F", "male", " Female ", "m", None, "Unknown", ""], name="sex"), source="f.csv"
    )
    assert sex.tolist()[:4] == ["F", "M", "F", "M"]
    assert sex.isna().tolist()[4:] == [True] * 3
    assert notes == ["1 row of unknown or other sex turned into missing"]


def test_numbers_for_sex_are_refused_unless_mapped():
    values = pd.Series([0, 1, 1], name="gender")
    with pytest.raises(UserError, match=r"'gender' of f.csv .*'0', '1' .3 rows: 1, 2, 3"):
        clean_sex(values, source="f.csv")
    sex, _ = clean_sex(values, source="f.csv", sex_values={"0": "M", "1": "F"})
    assert sex.tolist() == ["M", "F", "F"]
    with pytest.raises(UserError, match="must be F or M"):
        clean_sex(values, source="f.csv", sex_values={"0": "male"})


def test_ages():
    years, notes = clean_age(pd.Series(["058Y", "006M", "073D", "41", "414", "-1", "old", None]))
    np.testing.assert_allclose(years[:4], [58, 0.5, 73 / 365.25, 41])
    assert years[4:].isna().all()
    assert notes == [
        "2 impossible ages turned into missing",
        "1 unreadable age turned into missing",
    ]
    years, notes = clean_age(pd.Series([0, 120, 121]))
    assert years.isna().tolist() == [False, False, True]
    assert len(notes) == 1
