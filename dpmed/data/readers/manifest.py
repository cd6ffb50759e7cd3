"""Any hospital's own data: a CSV or Parquet file with one row an image, columns named by the user.

The user says which column of the file is which column of the study table, and which columns are
labels. Nothing is guessed: a label value other than 1, 0 or missing is refused with its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet

from dpmed.data.readers.attributes import clean_age, clean_sex
from dpmed.data.readers.csv_files import read_csv_columns
from dpmed.data.table import COLUMNS, require_columns, validate_table
from dpmed.errors import UserError, did_you_mean


def read_manifest(
    path: Path | str,
    *,
    columns: Mapping[str, str],
    labels: Mapping[str, str] | Sequence[str],
    sex_values: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """The study table of a manifest; `image` stays as written, relative to the images' folder.

    Args:
        path: a .csv, .csv.gz or .parquet file.
        columns: column of the study table -> column of the file; `image` is required, the others
            (patient_id, study_id, sex, age, view, site, split) are missing where not named.
        labels: label -> column of the file, or a list of names that are both.
        sex_values: what the file's own values of sex mean, where they are not spelt out.

    Raises:
        UserError: an unreadable file, an absent column, or a value that is not allowed.
    """
    source = Path(path)
    _check_names(columns, labels)
    label_names = dict(labels) if isinstance(labels, Mapping) else {name: name for name in labels}
    rows = _read_rows(source, list(dict.fromkeys([*columns.values(), *label_names.values()])))
    table = pd.DataFrame({name: rows[column] for name, column in columns.items()})
    notes: list[str] = []
    if "sex" in columns:
        table["sex"], sex_notes = clean_sex(
            rows[columns["sex"]], source=str(source), sex_values=sex_values
        )
        notes += sex_notes
    if "age" in columns:
        table["age"], age_notes = clean_age(rows[columns["age"]])
        notes += age_notes
    for name, column in label_names.items():
        table[name] = rows[column]
    table.attrs["notes"] = notes
    return validate_table(table, list(label_names), source=str(source))


def _check_names(columns: Mapping[str, str], labels: Mapping[str, str] | Sequence[str]) -> None:
    for name in columns:
        if name not in COLUMNS:
            raise UserError(
                f"data.columns names {name!r}, which is not a column of the study table: "
                f"{', '.join(COLUMNS)}.{did_you_mean(name, COLUMNS)} Labels go into data.labels."
            )
    if "image" not in columns:
        raise UserError(
            "data.columns does not say which column of the manifest holds the images. "
            "Add data.columns.image=NAME."
        )
    if not labels:
        raise UserError("data.labels is empty. Name the label columns, for example [pneumonia].")
    for name in labels:
        if name in COLUMNS:
            raise UserError(
                f"label {name!r} has the name of a standard column ({', '.join(COLUMNS)}). "
                f"Rename it: data.labels={{{name}_label: {name}}}."
            )


def _read_rows(path: Path, names: list[str]) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"data.path={path} is not a file. Give the CSV or Parquet manifest.")
    if path.suffix == ".parquet":
        return _read_parquet(path, names)
    if path.name.endswith((".csv", ".csv.gz")):
        return read_csv_columns(path, names)
    raise UserError(f"data.path={path} must end in .csv, .csv.gz or .parquet.")


def _read_parquet(path: Path, names: list[str]) -> pd.DataFrame:
    try:
        require_columns(parquet.read_schema(path).names, names, source=str(path))
        return pd.read_parquet(path, columns=names).reset_index(drop=True)
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise UserError(f"cannot read {path} as Parquet: {error}") from None
