"""The study table: one row an image, the contract between the readers and everything after them.

A reader builds a frame and hands it to `validate_table`, which gives every table the same columns,
types and spellings. Reading a table never opens an image. A missing label is never negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from dpmed.errors import UserError, did_you_mean

COLUMNS = ("image", "patient_id", "study_id", "sex", "age", "view", "site", "split")
TEXT_COLUMNS = tuple(name for name in COLUMNS if name != "age")
SPLITS = ("train", "validation", "test")
ALLOWED_VALUES = {"sex": ("F", "M"), "split": SPLITS}
MAX_ROWS_NAMED = 5


def validate_table(
    table: pd.DataFrame, labels: Sequence[str] | None = None, *, source: str = "the study table"
) -> pd.DataFrame:
    """The table in its one form: `COLUMNS`, then the label columns, rows numbered from 0.

    Args:
        table: at least the column `image` and the label columns; absent standard columns are
            added as missing.
        labels: the label columns to keep, in this order; None keeps every non-standard column.
        source: the file or data set, named in errors.

    Returns:
        A new frame: text columns hold text or missing, `age` float64 years, labels float32
        1 / 0 / NaN. `attrs["notes"]` and other attributes are kept.

    Raises:
        UserError: no rows, an absent column or label, an image listed twice, a value that is not
            allowed.
    """
    chosen = label_columns(table) if labels is None else list(labels)
    require_columns(table.columns, ["image"], source=source)
    require_columns(label_columns(table), chosen, source=source, kind="label")
    if table.empty:
        raise UserError(f"{source} has no rows, so there is nothing to train on or to evaluate.")
    columns: dict[str, pd.Series] = {}
    for name in TEXT_COLUMNS:
        columns[name] = as_text(table[name]) if name in table else _missing_text(len(table))
    columns["age"] = _numbers(table["age"], "age", source) if "age" in table else _nan(len(table))
    for name in chosen:
        columns[name] = as_label(table[name], source=source)
    result = pd.DataFrame({name: columns[name] for name in (*COLUMNS, *chosen)})
    _check_values(result, source)
    _check_images(result["image"], source)
    result.attrs = {**table.attrs, "notes": list(table.attrs.get("notes", []))}
    return result


def label_columns(table: pd.DataFrame) -> list[str]:
    """The label columns of a table: all that are not standard columns, in order."""
    return [str(name) for name in table.columns if name not in COLUMNS]


def has_patient_ids(table: pd.DataFrame) -> bool:
    """True where every row names its patient; the unit `patient` needs this."""
    return bool(table["patient_id"].notna().all())


def add_note(table: pd.DataFrame, note: str) -> None:
    """Append a sentence to `table.attrs["notes"]`, which the banner and the report show."""
    table.attrs["notes"] = [*table.attrs.get("notes", []), note]


def require_columns(
    found: Iterable[str], required: Iterable[str], *, source: str, kind: str = "column"
) -> None:
    """Fail with the missing and the found names, and the nearest match of each missing one.

    Raises:
        UserError: a required name is not among the found ones.
    """
    names = [str(name) for name in found]
    missing = [name for name in required if name not in names]
    if not missing:
        return
    hints = "".join(did_you_mean(name, names) for name in missing)
    plural = "s" if len(missing) > 1 else ""
    raise UserError(
        f"{source} lacks the {kind}{plural} {', '.join(map(repr, missing))}.{hints} "
        f"It has: {', '.join(names)}."
    )


def as_text(values: pd.Series) -> pd.Series:
    """Values as trimmed text, or missing; 12.0 of a column with gaps becomes '12'."""
    if pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    text = values.astype("string").str.strip()
    return text.mask(text == "").astype("str").reset_index(drop=True)


def as_label(values: pd.Series, *, source: str) -> pd.Series:
    """A label as float32 1 / 0 / NaN.

    Raises:
        UserError: a value other than 1, 0, true, false or missing, with its first row numbers.
    """
    numbers = _numbers(values, str(values.name), source)
    wrong = (numbers.notna() & ~numbers.isin([0.0, 1.0])).to_numpy()
    if wrong.any():
        raise UserError(
            f"label {values.name!r} of {source} has values other than 1, 0 or missing "
            f"({rows_named(wrong)}; for example {values.to_numpy()[wrong][0]!r}). "
            "Map uncertain or graded values to 1, 0 or missing first."
        )
    return numbers.astype("float32")


def rows_named(mask: np.ndarray) -> str:
    """'3 rows: 2, 7, 9', counted from 1 without the header, so that a user finds them."""
    rows = np.flatnonzero(mask) + 1
    shown = ", ".join(str(row) for row in rows[:MAX_ROWS_NAMED])
    more = ", ..." if len(rows) > MAX_ROWS_NAMED else ""
    return f"{len(rows)} row{'s' if len(rows) > 1 else ''}: {shown}{more}"


def _numbers(values: pd.Series, name: str, source: str) -> pd.Series:
    """Values as float64; text that is no number is refused, blank text is missing."""
    if pd.api.types.is_bool_dtype(values):
        return values.astype("float64").reset_index(drop=True)
    if not pd.api.types.is_numeric_dtype(values):
        values = values.where(values.astype("string").str.strip() != "", np.nan)
        words = {"true": 1.0, "false": 0.0}
        lower = values.astype("string").str.strip().str.lower()
        values = values.where(~lower.isin(words).fillna(False), lower.map(words))
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    wrong = (values.notna() & numbers.isna()).to_numpy()
    if wrong.any():
        raise UserError(
            f"column {name!r} of {source} must hold numbers ({rows_named(wrong)}; "
            f"for example {values.to_numpy()[wrong][0]!r})."
        )
    return numbers.reset_index(drop=True)


def _check_values(table: pd.DataFrame, source: str) -> None:
    for name, allowed in ALLOWED_VALUES.items():
        wrong = (table[name].notna() & ~table[name].isin(allowed)).to_numpy()
        if wrong.any():
            value = str(table[name].to_numpy()[wrong][0])
            raise UserError(
                f"{name}={value!r} in {source} is not one of {', '.join(allowed)} "
                f"({rows_named(wrong)}).{did_you_mean(value, allowed)}"
            )


def _check_images(images: pd.Series, source: str) -> None:
    absent = images.isna().to_numpy()
    if absent.any():
        raise UserError(f"{source} has rows without an image ({rows_named(absent)}).")
    repeated = images.duplicated().to_numpy()
    if repeated.any():
        raise UserError(
            f"{source} lists an image twice ({rows_named(repeated)}; for example "
            f"{images.to_numpy()[repeated][0]!r}). One row is one image: remove the repetition."
        )


def _missing_text(num_rows: int) -> pd.Series:
    return pd.Series([np.nan] * num_rows, dtype="str")


def _nan(num_rows: int) -> pd.Series:
    return pd.Series(np.full(num_rows, np.nan))
