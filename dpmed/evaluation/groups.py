"""Which group each image belongs to: any column, ages in published bins, pairwise intersections.

Ages are cut into half-open bins of completed years; a missing value is a group of its own
("missing") that is shown with its counts but never compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import pandas as pd

from dpmed.errors import UserError, did_you_mean

MISSING = "missing"
OUTSIDE = "outside the bins"
NOT_COMPARED = (MISSING, OUTSIDE)

# Edges in years. private_fair_accurate: arXiv 2302.01622; cross_site: Radiology AI ryai.230212.
AGE_BINS: dict[str, tuple[float, ...]] = {
    "private_fair_accurate": (0, 30, 60, 70, 80, 100),
    "cross_site": (0, 40, 70, 100),
}


def assign_groups(
    table: pd.DataFrame,
    *,
    attributes: Sequence[str],
    age_bins: str | Sequence[float],
    intersections: bool,
) -> dict[str, np.ndarray]:
    """The group name of every row, by attribute; `sex & age` is an intersection's attribute.

    Args:
        table: any table with one row an image.
        attributes: names of columns; `age` is binned, other columns are taken as they are.
        age_bins: a preset's name or increasing edges in years.
        intersections: also every pair of attributes.

    Raises:
        UserError: a column or preset does not exist.
    """
    single = {name: _single(table, name, age_bins) for name in attributes}
    if not intersections:
        return single
    pairs = {
        f"{first} & {second}": _intersect(single[first], single[second])
        for first, second in combinations(attributes, 2)
    }
    return single | pairs


def age_edges(age_bins: str | Sequence[float]) -> np.ndarray:
    """The edges in years of a preset, or the given ones once they are checked."""
    if isinstance(age_bins, str):
        if age_bins not in AGE_BINS:
            raise UserError(
                f"age_bins={age_bins}: no such preset.{did_you_mean(age_bins, AGE_BINS)} "
                f"Choose one of {', '.join(AGE_BINS)} or give increasing edges in years."
            )
        return np.asarray(AGE_BINS[age_bins], float)
    edges = np.asarray(age_bins, float)
    if len(edges) < 2 or (np.diff(edges) <= 0).any():
        raise UserError(f"age_bins={list(age_bins)}: give at least two increasing edges in years.")
    return edges


def _single(table: pd.DataFrame, name: str, age_bins: str | Sequence[float]) -> np.ndarray:
    if name not in table.columns:
        columns = [str(column) for column in table.columns]
        raise UserError(
            f"subgroup={name}: the predictions have no such column."
            f"{did_you_mean(name, columns)} They have: {', '.join(columns)}."
        )
    if name == "age":
        return _bin_ages(table["age"].to_numpy(float, na_value=np.nan), age_edges(age_bins))
    missing_N = table[name].isna().to_numpy()
    return np.where(missing_N, MISSING, table[name].astype(str).to_numpy(str))


def _bin_ages(ages_N: np.ndarray, edges: np.ndarray) -> np.ndarray:
    names = [f"[{low:g}, {high:g})" for low, high in pairwise(edges)]
    index_N = np.searchsorted(edges, ages_N, side="right") - 1
    inside_N = (index_N >= 0) & (index_N < len(names))
    named_N = np.asarray(names, dtype=object)[np.where(inside_N, index_N, 0)]
    named_N = np.where(inside_N, named_N, OUTSIDE)
    return np.where(np.isnan(ages_N), MISSING, named_N).astype(str)


def _intersect(first_N: np.ndarray, second_N: np.ndarray) -> np.ndarray:
    joined_N = np.char.add(np.char.add(first_N, " & "), second_N)
    missing_N = (first_N == MISSING) | (second_N == MISSING)
    outside_N = (first_N == OUTSIDE) | (second_N == OUTSIDE)
    return np.where(missing_N, MISSING, np.where(outside_N, OUTSIDE, joined_N))
