import numpy as np
import pandas as pd
import pytest

from dpmed.data.readers.attributes import clean_age, clean_sex
from dpmed.errors import UserError


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
