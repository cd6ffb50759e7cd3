import json

import numpy as np
import pandas as pd

from dpmed.data import data_sheet, validate_table


def test_counts_by_split():
    table = validate_table(
        pd.DataFrame(
            {
                "image": list("abcd"),
                "patient_id": ["1", "1", "2", "3"],
                "sex": ["F", "F", "M", None],
                "age": [20, 21, 70, np.nan],
                "view": ["PA", "AP", "PA", "PA"],
                "site": "here",
                "split": ["train", "train", "train", "test"],
                "edema": [1, 0, None, 1],
            }
        )
    )
    table.attrs["notes"] = ["a note"]
    sheet = data_sheet(
        table,
        ["edema"],
        name="mine",
        preprocessing={"image_size": 64},
        label_harmonisation={"edema": ["Edema"]},
        num_skipped=2,
    )
    json.dumps(sheet, allow_nan=False)
    train = sheet["splits"]["train"]
    assert train["num_patients"] == 2
    assert train["num_images"] == 3
    assert train["prevalence"]["edema"] == {"positive": 1, "negative": 1, "missing": 1}
    assert train["sex"] == {"F": 2, "M": 1}
    assert train["view"] == {"PA": 2, "AP": 1}
    assert train["site"] == {"here": 3}
    assert train["age"]["groups"] == {"0-17": 0, "18-39": 2, "40-64": 0, "65+": 1}
    assert train["age"]["median"] == 21
    assert sheet["splits"]["test"]["age"]["missing"] == 1
    assert sheet["splits"]["test"]["sex"] == {"missing": 1}
    assert "validation" not in sheet["splits"]
    assert sheet["notes"] == ["a note"]
    assert sheet["num_skipped"] == 2
    assert sheet["label_harmonisation"] == {"edema": ["Edema"]}


def test_patients_are_not_counted_where_they_are_not_named():
    table = validate_table(pd.DataFrame({"image": ["a", "b"], "split": "train", "edema": [1, 0]}))
    assert data_sheet(table, ["edema"], name="mine")["splits"]["train"]["num_patients"] is None
