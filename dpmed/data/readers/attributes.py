"""Sex and age in the spellings of hospitals and releases, brought to the study table's own.

Each function returns the cleaned column and the notes that say what was lost. A spelling whose
meaning is not certain is refused, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from dpmed.data.table import as_text, rows_named
from dpmed.errors import UserError

MAX_AGE_YEARS = 120.0  # older than any person on record; ChestX-ray14 has ages such as 414
SEX_SPELLINGS = {"f": "F", "female": "F", "m": "M", "male": "M"}
UNKNOWN_SEX = {"u", "unknown", "o", "other", "x", "n/a", "na", "none", "nan", "not specified"}
YEARS_PER_UNIT = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25, "": 1.0}


def clean_sex(
    values: pd.Series, *, source: str, sex_values: Mapping[str, str] | None = None
) -> tuple[pd.Series, list[str]]:
    """Sex as F, M or missing.

    Args:
        values: the column as read.
        source: the file, named in errors.
        sex_values: what the file's own values mean, for example {"1": "F", "0": "M"}.

    Raises:
        UserError: a value that is neither a known spelling nor in `sex_values`.
    """
    meanings = {**SEX_SPELLINGS, **_given_meanings(sex_values or {})}
    text = as_text(values)
    lower = text.str.lower()
    sex = lower.map(meanings).astype("str")
    unknown = lower.isin(UNKNOWN_SEX).to_numpy() & sex.isna().to_numpy()
    wrong = text.notna().to_numpy() & sex.isna().to_numpy() & ~unknown
    if wrong.any():
        found = ", ".join(repr(value) for value in sorted(text[wrong].unique())[:5])
        raise UserError(
            f"column {values.name!r} of {source} has sex values that could mean either: {found} "
            f"({rows_named(wrong)}). Allowed: F, M, female, male or missing. Say what the others "
            "mean in data.sex_values, for example data.sex_values={'0':M,'1':F}."
        )
    notes = [f"{_count(unknown, 'row')} of unknown or other sex turned into missing"]
    return sex, notes if unknown.any() else []


def clean_age(values: pd.Series) -> tuple[pd.Series, list[str]]:
    """Age in years (float64), from numbers or DICOM text such as 058Y, 010M, 003D.

    Negative ages and ages above 120 years become missing, as does text that is no age; the notes
    count both.
    """
    if pd.api.types.is_numeric_dtype(values):
        years = values.astype("float64").reset_index(drop=True)
        unreadable = np.zeros(len(years), dtype=bool)
    else:
        text = as_text(values)
        codes, spellings = pd.factorize(text)  # a table has some hundred different ages
        known = np.array([*map(_years, spellings), np.nan])
        years = pd.Series(known[codes])
        unreadable = (text.notna() & years.isna()).to_numpy()
    impossible = ((years < 0) | (years > MAX_AGE_YEARS)).to_numpy()
    notes = []
    if impossible.any():
        notes.append(f"{_count(impossible, 'impossible age')} turned into missing")
    if unreadable.any():
        notes.append(f"{_count(unreadable, 'unreadable age')} turned into missing")
    return years.mask(impossible), notes


def _years(text: str) -> float:
    """Years of one spelling, NaN where it is no age."""
    parts = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*([YMWD]?)", text.upper())
    return float(parts[1]) * YEARS_PER_UNIT[parts[2]] if parts else np.nan


def _given_meanings(sex_values: Mapping[str, str]) -> dict[str, str]:
    for value, meaning in sex_values.items():
        if meaning not in ("F", "M"):
            raise UserError(f"data.sex_values[{value!r}]={meaning!r} must be F or M.")
    return {str(value).strip().lower(): meaning for value, meaning in sex_values.items()}


def _count(mask: np.ndarray, noun: str) -> str:
    number = int(mask.sum())
    return f"{number} {noun}{'s' if number != 1 else ''}"
