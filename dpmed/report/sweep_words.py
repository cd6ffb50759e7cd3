"""Sentences about a sweep, made from its numbers: the most and the least favourable honest summary.

Both are always shown together, so that nobody has to choose which one to print.
"""

from __future__ import annotations

import pandas as pd

from dpmed.report.numbers import decimal, group_name
from dpmed.report.sweep_means import MACRO, OVER_SEEDS
from dpmed.report.sweep_runs import Sweep


def sentences(sweep: Sweep, means: pd.DataFrame) -> list[tuple[str, str]]:
    """A title and a sentence each; empty where no private run is finished."""
    if not len(means):
        return []
    private = means[means["epsilon"].notna() & means[MACRO].notna()]
    if private.empty:
        return []
    ranked = private.sort_values(MACRO, kind="stable")
    worst, best = ranked.iloc[0], ranked.iloc[-1]
    found = [("Most favourable", _sentence(best, means))]
    if len(private) > 1:
        found.append(("Least favourable", _sentence(worst, means)))
    gap = _widest_group_gap(sweep, private)
    return [*found, ("For whom", gap)] if gap else found


def joint_budget(sweep: Sweep) -> str:
    """What all private runs spend together, by plain addition; empty for fewer than two."""
    if not len(sweep.runs):
        return ""
    private = sweep.runs[sweep.runs["private"]]
    if len(private) < 2:
        return ""
    epsilon = private["epsilon_spent"].astype(float).sum()
    delta = private["delta"].astype(float).sum()
    return (
        f"Choosing among these {len(private)} private runs, or releasing several, spends their "
        f"budgets together where they share patients: at most epsilon {epsilon:.4g} at delta "
        f"{delta:.3g} by plain addition; the ledger's composition is tighter."
    )


def _sentence(row: pd.Series, means: pd.DataFrame) -> str:
    value = float(row[MACRO])
    where = "" if row["series"] == "all runs" else f" ({row['series']})"
    seeds = f"{row['num_seeds']} seed" + ("" if row["num_seeds"] == 1 else "s")
    words = (
        f"At epsilon {row['epsilon']:g}{where} the mean AUROC is {decimal(value)} "
        f"({_interval(row)}; {seeds}, interval over {row['interval_over']}"
    )
    if row["interval_over"] == OVER_SEEDS:
        low, high = row[f"{MACRO}.patients_low"], row[f"{MACRO}.patients_high"]
        words += f"; over patients {low:.3f}–{high:.3f}"
    words += ")"
    twin = means[means["epsilon"].isna() & (means["series"] == row["series"])]
    if twin.empty:
        return f"{words}; there is no run without DP to compare with."
    reference = float(twin.iloc[0][MACRO])
    change = value - reference
    direction = "below" if change < 0 else "above"
    return f"{words}, {abs(change):.3f} {direction} the same model without DP ({reference:.3f})."


def _interval(row: pd.Series) -> str:
    low, high = row[f"{MACRO}.low"], row[f"{MACRO}.high"]
    return "no interval" if pd.isna(low) or pd.isna(high) else f"95 % CI {low:.3f}–{high:.3f}"


def _widest_group_gap(sweep: Sweep, private: pd.DataFrame) -> str:
    widest, words = -1.0, ""
    for _, row in private.iterrows():
        for attribute in dict.fromkeys(attribute for attribute, _ in sweep.groups):
            values = {
                group: float(row[f"group.{attribute}.{group}"])
                for name, group in sweep.groups
                if name == attribute and pd.notna(row[f"group.{attribute}.{group}.low"])
            }
            if len(values) > 1 and max(values.values()) - min(values.values()) > widest:
                low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
                widest = values[high] - values[low]
                best, worst = (group_name(attribute, group) for group in (high, low))
                words = (
                    f"The widest gap between groups is {widest:.3f}, by {attribute} at epsilon "
                    f"{row['epsilon']:g}: {best} {values[high]:.3f}, {worst} {values[low]:.3f}."
                )
    return words
