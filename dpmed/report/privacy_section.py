"""The part of the page that says what is guaranteed: statement, plan, epsilon over steps, coverage.

Every number comes from `plan.json` and the ledger. Must not account: epsilon is read, not computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dpmed.report.figures import Figure
from dpmed.report.numbers import at_most, compact, scientific
from dpmed.report.plot_epsilon import epsilon_figure
from dpmed.report.plot_profile import attack_figure, profile_figure
from dpmed.report.privacy_bounds import (
    epsilon_points,
    membership_bounds,
    profile_points,
    reconstruction_bounds,
    strongest_attack,
)
from dpmed.report.run_files import RunFiles, is_number

PLAN_FIELDS = {
    "unit": ("Unit", "whose contribution is protected"),
    "adjacency": ("Adjacency", "how two neighbouring data sets differ"),
    "epsilon": ("Epsilon", "the guarantee; smaller is stronger"),
    "delta": ("Delta", "probability that the guarantee fails"),
    "accountant": ("Accountant", "how epsilon was computed"),
    "mu": ("Gaussian DP, mu", "the whole privacy profile in one number"),
    "mu_regret": ("Regret of mu", "how far mu overstates the leak; above 0.01 read the profile"),
    "num_units": ("Units N", "declared public, never counted"),
    "expected_batch_size": ("Expected batch size", "units a step, on average; declared public"),
    "sample_rate": ("Sample rate", "chance of a unit to take part in a step"),
    "num_steps": ("Logical steps", "updates of the weights"),
    "noise_multiplier": ("Noise multiplier", "noise standard deviation over sensitivity"),
    "max_grad_norm": ("Clip norm", "bound on one unit's gradient"),
    "views_per_unit": ("Images of a unit in a step", "at most, drawn at random"),
}
DEFAULT_COVERED = ("The training patients' images and labels, through the released weights.",)
DEFAULT_NOT_COVERED = (
    "Evaluation: every table and curve on this page that was computed from patients' data.",
    "Thresholds chosen on validation data, and counts and prevalences in the data sheet.",
    "Checkpoints and the run folder: they are as sensitive as the data.",
)
SCHEDULE_FIELDS = {
    name: PLAN_FIELDS[name]
    for name in ("unit", "num_units", "expected_batch_size", "sample_rate", "num_steps")
}
_OVER_STEPS = "Epsilon spent over the run: a function of the steps alone, known before training."
_ATTACK = "The strongest attack the plan allows: no guess about who took part can rise above it."
_PROFILE = "The whole privacy profile: the quoted pair (dot) is one point of this curve."
_LISTED_ELSEWHERE = ("Covered", "Not covered")
_LONGEST_TITLE = 24
_HIDDEN = ("statement", "covered", "not_covered", "private", "enabled")


def privacy(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """The statement, the plan, what it allows an attacker, and what it covers.

    Raises:
        Unavailable: there is no plan.
    """
    plan = run.need("plan.json")
    profile = profile_points(plan) if run.dp_enabled else []
    return {
        "statement": _statement(plan),
        "fields": _fields(run),
        "more": _more(plan),
        "drawn": _figures(run, profile, figures),
        "membership": membership_bounds(profile) if profile else [],
        "reconstruction": reconstruction_bounds(profile) if profile else [],
        "patients": _pairs_of(plan.get("patient_epsilon")),
        "unit": str(plan.get("unit", "unit")),
        "dp_enabled": run.dp_enabled,
        "covered": _sentences(plan.get("covered"), DEFAULT_COVERED) if run.is_private else [],
        "not_covered": [
            *_sentences(plan.get("not_covered"), DEFAULT_NOT_COVERED),
            *_other_runs(run.run.get("budget")),
        ],
    }


def ledger(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """Steps reserved by every run that the ledger names."""
    del figures
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for entry in run.ledger:
        runs.setdefault(str(entry.get("run_id", "unnamed")), []).append(entry)
    problem = run.problems.get("ledger.jsonl", "") if run.dp_enabled else ""
    return {
        "problem": problem,
        "runs": [(name, _ledger_row(entries)) for name, entries in runs.items()],
        "num_entries": len(run.ledger),
        "dp_enabled": run.dp_enabled,
        "planned": run.plan.get("num_steps"),
        "this_run": str(run.run.get("run_id", "")),
        "budget": _budget(run.run.get("budget")),
        "charged": len(run.run.get("charged_steps") or []),
    }


def _figures(
    run: RunFiles, profile: list[tuple[float, float]], figures: list[Figure]
) -> list[tuple[Figure, str]]:
    """What can be drawn of the plan, with captions."""
    drawn = []
    points = epsilon_points(run.plan) if run.dp_enabled else []
    if len(points) > 1:
        done = run.run.get("steps_done")
        target = float(run.plan.get("target_epsilon") or run.plan["epsilon"])
        steps_done = int(done) if is_number(done) else None
        drawn.append((epsilon_figure(points, target=target, steps_done=steps_done), _OVER_STEPS))
    if len(profile) > 1:
        drawn.append((attack_figure(strongest_attack(profile)), _ATTACK))
        positive = [(epsilon, delta) for epsilon, delta in profile if delta > 0]
        epsilon, delta = float(run.plan["epsilon"]), float(run.plan["delta"])
        drawn.append((profile_figure(positive, epsilon=epsilon, delta=delta), _PROFILE))
    figures.extend(figure for figure, _ in drawn)
    return drawn


def _statement(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Paragraphs as (first word, rest); coverage is left to the lists beside it."""
    text = str(plan.get("statement") or "")
    paragraphs = []
    for line in filter(None, map(str.strip, text.split("\n"))):
        first, colon, rest = line.partition(": ")
        is_titled = bool(colon) and len(first) < _LONGEST_TITLE
        if first not in _LISTED_ELSEWHERE:
            paragraphs.append((first, rest) if is_titled else ("", line))
    return paragraphs


def _fields(run: RunFiles) -> list[tuple[str, str, str]]:
    plan = run.plan
    known = PLAN_FIELDS if run.dp_enabled else SCHEDULE_FIELDS
    return [
        (name, "not reported" if plan.get(field) is None else _value(field, plan[field]), meaning)
        for field, (name, meaning) in known.items()
    ]


def _value(field: str, value: Any) -> str:
    if field == "epsilon" and is_number(value):
        return f"{at_most(value)} (rounded up)"
    if field == "delta" and is_number(value):
        return scientific(value)
    return compact(value).replace("_", " ")


def _pairs_of(found: Any) -> list[tuple[int, str]]:
    if not isinstance(found, list):
        return []
    return [(int(count), at_most(float(epsilon))) for count, epsilon in found]


def _more(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name.replace("_", " "), compact(value))
        for name, value in plan.items()
        if name not in PLAN_FIELDS and name not in _HIDDEN
        and isinstance(value, (str, int, float, bool))
    ]  # fmt: skip


def _budget(found: object) -> str:
    """What all runs on the data set have spent together, as the ledger composed it."""
    if not isinstance(found, Mapping):
        return ""
    epsilon, runs = found.get("epsilon"), list(found.get("run_ids") or [])
    spent = at_most(epsilon) if is_number(epsilon) else "without bound"
    who = f"All {len(runs)} private runs on this data set together have"
    if len(runs) == 1:
        who = "This is the only private run on this data set so far. It has"
    words = (
        f"{who} spent epsilon {spent} at "
        f"delta {scientific(float(found['delta']))}, in {compact(found.get('num_steps'))} steps."
    )
    others = list(found.get("not_private_run_ids") or [])
    if others:
        words += f" {len(others)} further runs had no secret noise; releasing one voids this."
    return words


def _other_runs(found: object) -> list[str]:
    """Runs on the same data set that settings may have been chosen by."""
    runs = list(found.get("run_ids") or []) if isinstance(found, Mapping) else []
    if len(runs) < 2:
        return []
    return [
        f"{len(runs) - 1} other private runs on this data set are in its ledger. If this run was "
        "chosen by comparing it with them, their budgets are spent too (see the budget ledger)."
    ]


def _sentences(found: object, default: Sequence[str]) -> list[str]:
    if isinstance(found, str):
        return [found]
    return [str(item) for item in found] if isinstance(found, (list, tuple)) else list(default)


def _ledger_row(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    steps = [entry["step"] for entry in entries if is_number(entry.get("step"))]
    return {
        "num_entries": len(entries),
        "num_steps": len(set(steps)),
        "num_keys": len({entry.get("key_id") for entry in entries}),
        "first": str(entries[0].get("time", "")),
        "last": str(entries[-1].get("time", "")),
    }
