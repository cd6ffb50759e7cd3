"""The part of the page that says what is guaranteed: statement, plan, epsilon over steps, coverage.

Every number comes from `plan.json` and the ledger. Must not account: epsilon is read, not computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dpmed.report.figures import Figure
from dpmed.report.headline import membership_accuracy, percent_at_most
from dpmed.report.numbers import compact
from dpmed.report.plot_epsilon import epsilon_figure
from dpmed.report.run_files import RunFiles, is_number

PLAN_FIELDS = {
    "unit": ("Unit", "whose contribution is protected"),
    "adjacency": ("Adjacency", "how two neighbouring data sets differ"),
    "epsilon": ("Epsilon", "the guarantee; smaller is stronger"),
    "delta": ("Delta", "probability that the guarantee fails"),
    "accountant": ("Accountant", "how epsilon was computed"),
    "num_units": ("Units N", "declared public, never counted"),
    "expected_batch_size": ("Expected batch size", "units a step, on average; declared public"),
    "sample_rate": ("Sample rate", "chance of a unit to take part in a step"),
    "num_steps": ("Logical steps", "noisy updates"),
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
_HIDDEN = ("statement", "covered", "not_covered", "private")


def privacy(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """The statement, the plan and what it covers.

    Raises:
        Unavailable: there is no plan.
    """
    plan = run.need("plan.json")
    curve = _curve(run, figures) if run.dp_enabled else None
    return {
        "statement": _statement(plan),
        "fields": _fields(plan),
        "more": _more(plan),
        "curve": curve,
        "bounds": _bounds(plan) if run.dp_enabled else [],
        "covered": _sentences(plan.get("covered"), DEFAULT_COVERED) if run.is_private else [],
        "not_covered": _sentences(plan.get("not_covered"), DEFAULT_NOT_COVERED),
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
    }


def epsilon_points(plan: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(steps, epsilon) pairs from the plan; empty where it has none."""
    found = plan.get("epsilon_over_steps")
    if not isinstance(found, Sequence):
        return []
    pairs = [tuple(pair) for pair in found if isinstance(pair, Sequence) and len(pair) == 2]
    return [
        (float(steps), float(epsilon))
        for steps, epsilon in pairs
        if is_number(steps) and is_number(epsilon)
    ]


def _curve(run: RunFiles, figures: list[Figure]) -> Figure | None:
    points = epsilon_points(run.plan)
    if len(points) < 2:
        return None
    done = run.run.get("steps_done")
    figure = epsilon_figure(
        points,
        target=float(run.plan.get("target_epsilon") or run.plan["epsilon"]),
        steps_done=int(done) if is_number(done) else None,
    )
    figures.append(figure)
    return figure


def _statement(plan: Mapping[str, Any]) -> list[str]:
    text = plan.get("statement")
    lines = str(text).split("\n") if text else []
    return [line.strip() for line in lines if line.strip()]


def _fields(plan: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (name, "not reported" if plan.get(field) is None else compact(plan[field]), meaning)
        for field, (name, meaning) in PLAN_FIELDS.items()
    ]


def _more(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name.replace("_", " "), compact(value))
        for name, value in plan.items()
        if name not in PLAN_FIELDS and name not in _HIDDEN
        and isinstance(value, (str, int, float, bool))
    ]  # fmt: skip


def _bounds(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    accuracy = membership_accuracy(float(plan["epsilon"]), float(plan.get("delta") or 0.0))
    return [
        ("Right guesses about membership, at most", percent_at_most(accuracy)),
        ("Membership advantage (TPR minus FPR), at most", f"{2 * accuracy - 1:.4f}"),
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
        "first": entries[0].get("time", ""),
        "last": entries[-1].get("time", ""),
    }
