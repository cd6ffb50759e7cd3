"""Shared labels from a release's own findings, by a mapping that the configuration holds.

A shared label is positive where any of its findings is present and negative where a row's findings
are known and none is. A label that a release lacks (an empty list) is missing, never negative.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from dpmed.errors import UserError, did_you_mean


def labels_from_findings(
    findings: pd.Series,
    mapping: Mapping[str, Sequence[str]],
    known: Sequence[str],
    *,
    source: str,
) -> dict[str, np.ndarray]:
    """Shared label -> float32 (num_rows,) 1 / 0 / NaN.

    Args:
        findings: a list of findings a row, or missing where nothing is known of the row.
        mapping: shared label -> findings.
        known: the findings that the release can name.
        source: the file, named in errors.

    Raises:
        UserError: the mapping or the file names a finding that the release does not know.
    """
    check_mapping(mapping, known, source=source)
    # A release repeats a few hundred combinations over its rows, so each is looked at once.
    codes, combinations = pd.factorize(findings.map(tuple, na_action="ignore"))
    sets = [frozenset(name.strip() for name in combination) for combination in combinations]
    _check_known(frozenset().union(*sets), known, source)
    return {
        label: _of_combinations(codes, [bool(names & wanted) for names in sets], wanted)
        for label, wanted in ((label, frozenset(names)) for label, names in mapping.items())
    }


def labels_from_columns(
    columns: pd.DataFrame,
    mapping: Mapping[str, Sequence[str]],
    known: Sequence[str],
    *,
    source: str,
) -> dict[str, np.ndarray]:
    """Shared label -> float32 (num_rows,) from columns that are 1 / 0 / NaN each.

    Positive where any column is, negative where all are, missing otherwise.

    Args:
        columns: one column a finding.
        mapping: shared label -> columns.
        known: the columns that the release has.
        source: the file, named in errors.

    Raises:
        UserError: the mapping names a column that the release does not have.
    """
    check_mapping(mapping, known, source=source)
    labels = {}
    for label, names in mapping.items():
        values = columns[list(names)].to_numpy(dtype=np.float32)
        positive = (values == 1).any(axis=1)
        negative = (values == 0).all(axis=1) & bool(names)
        labels[label] = np.select([positive, negative], [1.0, 0.0], np.nan).astype(np.float32)
    return labels


def check_mapping(
    mapping: Mapping[str, Sequence[str]], known: Sequence[str], *, source: str
) -> None:
    """Fail where a shared label is made from a finding that the release does not have.

    Raises:
        UserError: with the findings of the release and the nearest match.
    """
    for label, names in mapping.items():
        for name in names:
            if name not in known:
                raise UserError(
                    f"label {label!r} is made from {name!r}, which {source} does not have."
                    f"{did_you_mean(name, known)} It has: {', '.join(known)}."
                )


def own_labels(findings: Sequence[str]) -> dict[str, list[str]]:
    """A mapping that keeps a release's own findings: 'No Finding' -> label no_finding."""
    return {re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_"): [name] for name in findings}


def _of_combinations(codes: np.ndarray, positive: list[bool], wanted: frozenset[str]) -> np.ndarray:
    if not wanted:
        return np.full(len(codes), np.nan, dtype=np.float32)
    values = np.array([*positive, np.nan], dtype=np.float32)
    return values[codes]  # code -1, no findings known, takes the last entry, NaN


def _check_known(found: frozenset[str], known: Sequence[str], source: str) -> None:
    unknown = sorted(found - set(known))
    if unknown:
        raise UserError(
            f"{source} names findings that are not of this release: {', '.join(unknown[:5])}."
            f"{did_you_mean(unknown[0], known)} Known: {', '.join(known)}."
        )
