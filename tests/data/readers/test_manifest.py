import numpy as np
import pandas as pd
import pytest

from dpmed.data import read_manifest
from dpmed.errors import UserError

ROWS = pd.DataFrame(
    {
        "file": ["x/1.png", "x/2.png", "x/3.png"],
        "mrn": ["007", "007", "A9"],
        "gender": ["female", "F", "M"],
        "years": ["41", "042Y", ""],
        "pna": ["1", "", "0"],
        "eff": ["1.0", "0", "1"],
    }
)
COLUMNS = {"image": "file", "patient_id": "mrn", "sex": "gender", "age": "years"}
LABELS = {"pneumonia": "pna", "pleural_effusion": "eff"}


def write_csv(folder, rows=ROWS, name="my.csv"):
    rows.to_csv(folder / name, index=False)
    return folder / name


@pytest.mark.parametrize("name", ["my.csv", "my.csv.gz"])
def test_reads_a_csv(tmp_path, name):
    table = read_manifest(write_csv(tmp_path, name=name), columns=COLUMNS, labels=LABELS)
    assert table["patient_id"].tolist() == ["007", "007", "A9"]
    assert table["sex"].tolist() == ["F", "F", "M"]
    np.testing.assert_array_equal(table["age"], [41, 42, np.nan])
    np.testing.assert_array_equal(table["pneumonia"], [1, np.nan, 0])
    np.testing.assert_array_equal(table["pleural_effusion"], [1, 0, 1])
    assert table["site"].isna().all()


def test_parquet_with_its_own_types_gives_the_same(tmp_path):
    rows = ROWS.assign(years=[41.0, 42.0, np.nan], pna=[1.0, np.nan, 0.0], eff=[True, False, True])
    rows.to_parquet(tmp_path / "my.parquet")
    typed = read_manifest(tmp_path / "my.parquet", columns=COLUMNS, labels=LABELS)
    text = read_manifest(write_csv(tmp_path), columns=COLUMNS, labels=LABELS)
    pd.testing.assert_frame_equal(typed, text)


def test_numeric_patient_ids_from_parquet(tmp_path):
    pd.DataFrame({"image": ["a", "b"], "p": [3, 4], "edema": [0, 1]}).to_parquet(
        tmp_path / "my.parquet"
    )
    table = read_manifest(
        tmp_path / "my.parquet", columns={"image": "image", "patient_id": "p"}, labels=["edema"]
    )
    assert table["patient_id"].tolist() == ["3", "4"]


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        (
            {"image": "files"},
            ["pna"],
            r"lacks the column 'files'\. Did you mean 'file'\? It has: file",
        ),
        ({"image": "file", "patient": "mrn"}, ["pna"], "'patient'.*Did you mean 'patient_id'"),
        ({"patient_id": "mrn"}, ["pna"], "data.columns.image"),
        ({"image": "file"}, [], "data.labels is empty"),
        ({"image": "file"}, {"age": "pna"}, "name of a standard column"),
        ({"image": "file"}, ["gender"], "'gender'.*must hold numbers"),
        ({"image": "file"}, {"a": "years"}, "'a' of .*other than 1, 0|must hold numbers"),
    ],
)
def test_bad_settings_are_named(tmp_path, columns, labels, message):
    with pytest.raises(UserError, match=message):
        read_manifest(write_csv(tmp_path), columns=columns, labels=labels)


def test_label_values_are_named_with_their_rows(tmp_path):
    rows = ROWS.assign(pna=["1", "-1", "2"])
    with pytest.raises(UserError, match=r"'pneumonia'.*2 rows: 2, 3"):
        read_manifest(write_csv(tmp_path, rows), columns=COLUMNS, labels=LABELS)


def test_unclear_sex_is_refused_unless_mapped(tmp_path):
    path = write_csv(tmp_path, ROWS.assign(gender=["0", "1", "1"]))
    with pytest.raises(UserError, match=r"data.sex_values"):
        read_manifest(path, columns=COLUMNS, labels=LABELS)
    table = read_manifest(path, columns=COLUMNS, labels=LABELS, sex_values={"0": "F", "1": "M"})
    assert table["sex"].tolist() == ["F", "M", "M"]


def test_files_that_are_no_manifest(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        read_manifest(tmp_path / "none.csv", columns=COLUMNS, labels=LABELS)
    (tmp_path / "my.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="as Parquet"):
        read_manifest(tmp_path / "my.parquet", columns=COLUMNS, labels=LABELS)
    (tmp_path / "my.xlsx").touch()
    with pytest.raises(UserError, match="must end in"):
        read_manifest(tmp_path / "my.xlsx", columns=COLUMNS, labels=LABELS)
