import numpy as np
import pandas as pd
import pytest

from dpmed.data.readers.harmonise import labels_from_columns, labels_from_findings, own_labels
from dpmed.errors import UserError


def test_any_finding_is_positive_and_unknown_rows_are_missing():
    findings = pd.Series([["a"], ["b", " c "], None, ["d"]])
    labels = labels_from_findings(
        findings, {"x": ["a", "c"], "y": ["d"], "z": []}, list("abcd"), source="f"
    )
    np.testing.assert_array_equal(labels["x"], [1, 1, np.nan, 0])
    np.testing.assert_array_equal(labels["y"], [0, 0, np.nan, 1])
    assert np.isnan(labels["z"]).all()
    assert labels["x"].dtype == np.float32


def test_columns_are_negative_only_where_all_are():
    columns = pd.DataFrame({"left": [1, 0, 0, np.nan, np.nan], "right": [0, 0, np.nan, 1, np.nan]})
    labels = labels_from_columns(
        columns, {"x": ["left", "right"], "none": []}, ["left", "right"], source="f"
    )
    np.testing.assert_array_equal(labels["x"], [1, 0, np.nan, 1, np.nan])
    assert np.isnan(labels["none"]).all()


def test_names_of_another_vocabulary_are_refused():
    columns = pd.DataFrame({"Effusion": [1.0]})
    with pytest.raises(UserError, match=r"'x' is made from 'Efusion'.*Did you mean 'Effusion'"):
        labels_from_columns(columns, {"x": ["Efusion"]}, ["Effusion"], source="f")
    with pytest.raises(UserError, match=r"not of this release: b\.b.*Known: a"):
        labels_from_findings(pd.Series([["b.b"]]), {"x": ["a"]}, ["a"], source="f")


def test_own_labels():
    assert own_labels(["No Finding", "Nodule/Mass"]) == {
        "no_finding": ["No Finding"],
        "nodule_mass": ["Nodule/Mass"],
    }
