"""What privacy costs in a sweep, and whom: each private run minus its twin without DP.

A twin has the same settings except those of privacy, the same seed and the same patients in the
same splits, so the differences are paired; their interval is Student's over the seeds. With one
seed there is none here: `dpmed report RUN --twin RUN` gives one over patients.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from dpmed.report.numbers import Estimate, estimate
from dpmed.report.sweep_means import MACRO, student_interval
from dpmed.report.sweep_runs import Sweep

_SAME = ("seed", "split_hash", "dataset", "initialisation")


def cost_table(sweep: Sweep, means: pd.DataFrame) -> list[tuple[str, list[Estimate]]]:
    """One row a private condition: AUROC minus the twin's, over all patients and by group.

    Args:
        sweep: the runs.
        means: their conditions, which give the rows' order.

    Returns:
        A name and the differences in the order of `cost_columns`; no row without a twin.
    """
    pairs = _pairs(sweep)
    if pairs.empty:
        return []
    rows = []
    for _, condition in means[means["epsilon"].notna()].iterrows():
        mine = pairs[pairs["epsilon"] == condition["epsilon"]]
        for setting in sweep.varying:
            mine = mine[mine[setting] == condition[setting]]
        if mine.empty:
            continue
        where = "" if condition["series"] == "all runs" else f", {condition['series']}"
        name = f"epsilon {condition['epsilon']:g}{where} ({len(mine)} pairs)"
        rows.append((name, [_difference(mine, column) for column in cost_columns(sweep)]))
    return rows


def cost_columns(sweep: Sweep) -> list[str]:
    """The columns of the table of runs that are subtracted."""
    return [MACRO, *(f"group.{attribute}.{group}" for attribute, group in sweep.groups)]


def _pairs(sweep: Sweep) -> pd.DataFrame:
    """Private runs beside their twin's values, as `<column>.twin`."""
    runs = sweep.runs
    keys = [*_SAME, *(name for name in sweep.varying if not name.startswith("privacy."))]
    columns = [column for column in cost_columns(sweep) if column in runs]
    if runs.empty or not columns:
        return pd.DataFrame()
    known = runs.assign(**{key: runs[key].astype(str) for key in keys})
    private = known[known["epsilon"].notna()]
    without = known[known["epsilon"].isna()].drop_duplicates(keys)
    twins = without[[*keys, *columns]].rename(columns={name: f"{name}.twin" for name in columns})
    return private.merge(twins, on=keys)


def _difference(pairs: pd.DataFrame, column: str) -> Estimate:
    if column not in pairs:
        return estimate(None)
    values = (pairs[column].astype(float) - pairs[f"{column}.twin"].astype(float)).to_numpy()
    values = values[~np.isnan(values)]
    if not len(values):
        return estimate({"value": None, "reason": "not estimable: too few cases in every pair"})
    low, high = student_interval(values, limits=(-1.0, 1.0)) if len(values) > 1 else (None, None)
    return estimate(
        {
            "value": float(values.mean()),
            "ci_low": low,
            "ci_high": high,
            "reason": "" if len(values) > 1 else "a single pair",
        }
    )
