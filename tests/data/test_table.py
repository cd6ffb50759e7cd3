import numpy as np
import pandas as pd
import pytest

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
