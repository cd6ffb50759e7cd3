"""The plain-text table that a run prints at its end.

Works from files, like the page. Fits 80 columns; must not print.
"""

from __future__ import annotations

from pathlib import Path

from dpmed.report.headline import SUMMARIES, mapping, reported_split, split_size
from dpmed.report.numbers import at_most, compact, estimate, group_name, label_name
from dpmed.report.run_files import RunFiles, read_run

_WIDTH = 78


def summary_table(run_dir: Path) -> str:
    """AUROC of every label and of each sex with intervals and counts, epsilon, and the page's path.

    Args:
        run_dir: a run folder; what it lacks is said in place.
    """
    run = read_run(Path(run_dir))
    split, _ = reported_split(run)
    lines = [f"Results on {split_size(run, split)}", "-" * _WIDTH]
    lines += _auroc_lines(run) or [run.problems.get("metrics.json", "No metrics were written.")]
    lines += ["-" * _WIDTH, _privacy_line(run), f"Report: {_page(run)}"]
    return "\n".join(lines)


def _auroc_lines(run: RunFiles) -> list[str]:
    _, results = reported_split(run)
    auroc = mapping(results, "auroc")
    if not auroc:
        return []
    names = [name for name in auroc if name not in SUMMARIES] + ["macro"]
    rows = [(label_name(name), auroc.get(name)) for name in names]
    for sex, metrics in mapping(results, "subgroups", "sex").items():
        macro = mapping({"group": metrics}, "group", "auroc").get("macro")
        rows.append((f"  {group_name('sex', sex)}, mean over labels", macro))
    header = f"{'':<32}{'AUROC (95 % CI)':<24}{'with':>8}{'without':>10}"
    return [header, *(_row(name, entry) for name, entry in rows)]


def _row(name: str, entry: object) -> str:
    item = estimate(entry)
    line = f"{name:<32.31}{item.text:<24}{_count(item.num_positive)}{_count(item.num_negative, 10)}"
    return f"{line}  {item.short_reason}".rstrip() if item.value is None else line


def _count(number: int | None, width: int = 8) -> str:
    return f"{number:>{width},}" if number is not None else " " * width


def _privacy_line(run: RunFiles) -> str:
    plan = run.plan
    if not plan:
        return f"Privacy: {run.problems['plan.json']}"
    if not run.dp_enabled:
        return "Privacy: none. Trained without differential privacy; a reference, not for release."
    epsilon = at_most(float(plan["epsilon"]))
    words = f"epsilon {epsilon} at delta {compact(plan.get('delta'))} for each {plan.get('unit')}"
    if not run.is_private:
        return f"Privacy: NOT PRIVATE (injected key). With a secret key: {words}."
    return f"Privacy: {words}. The figures above are not covered by it."


def _page(run: RunFiles) -> str:
    path = run.folder / "report" / "index.html"
    return str(path) if path.is_file() else f"{path} (not written)"
