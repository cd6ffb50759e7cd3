"""Named columns of a CSV file as text, with errors that name the file and its columns.

The readers of the releases stand on this. Values stay text here, so that identifiers keep their
leading zeros; what they mean is the reader's business.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO, cast

import pandas as pd

from dpmed.data.table import require_columns
from dpmed.errors import UserError

HeaderFix = Callable[[list[str], int], list[str]]
READ_ERRORS = (OSError, EOFError, ValueError, zlib.error, csv.Error, OverflowError)


def read_csv_columns(
    path: Path,
    required: Sequence[str],
    *,
    optional: Sequence[str] = (),
    fix_header: HeaderFix | None = None,
) -> pd.DataFrame:
    """The named columns of a CSV file (plain or .gz), every value as text or missing.

    Args:
        path: the file.
        required: columns that must be there.
        optional: columns that are read where they are there.
        fix_header: mends the header, given its names and the number of fields of the first row.

    Raises:
        UserError: the file cannot be read, or lacks a required column.
    """
    try:
        header, num_fields = _header(path)
        if fix_header:
            header = fix_header(header, num_fields)
        require_columns(header, required, source=str(path))
        wanted = [name for name in (*required, *optional) if name in header]
        return _read_fields(path, [header.index(name) for name in wanted], wanted)
    except READ_ERRORS as error:
        raise UserError(f"cannot read {path}: {_reason(error)}") from None


def find_file(root: Path, names: Sequence[str], *, what: str) -> Path:
    """The first of these file names, or its .gz, that lies in the folder.

    Raises:
        UserError: none of them is there, or the folder is not.
    """
    if not root.is_dir():
        raise UserError(f"data.root={root} is not a folder. Give the folder that holds {what}.")
    if (path := find_optional_file(root, names)) is not None:
        return path
    raise UserError(f"{root} has no {' or '.join(names)} (plain or .gz), which is {what}.")


def find_optional_file(root: Path, names: Sequence[str]) -> Path | None:
    """The first of these file names, or its .gz, that lies in the folder; None without one."""
    candidates = (root / found for name in names for found in (name, f"{name}.gz"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def open_text(path: Path) -> TextIO:
    """A text file for reading, unzipped where its name ends in .gz."""
    if path.suffix == ".gz":
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


def _header(path: Path) -> tuple[list[str], int]:
    with open_text(path) as file:
        lines = csv.reader(file)
        header = next(lines, None)
        if header is None:
            raise ValueError("the file is empty")
        return [name.strip() for name in header], len(next(lines, header))


def _read_fields(path: Path, positions: list[int], names: list[str]) -> pd.DataFrame:
    """Fields by position: pandas, given the header, shifts columns when rows are longer."""
    try:
        fields = pd.read_csv(
            path, header=None, skiprows=1, usecols=positions, dtype="str", encoding="utf-8-sig"
        )
    except pd.errors.EmptyDataError:
        raise ValueError("it has a header but no rows") from None
    return fields[positions].set_axis(names, axis=1)


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
