"""The part of the page that says what privacy costs, and whom: this run minus its twin, paired.

The twin is named by the user: as a rule the same settings without differential privacy. The
statistics are `dpmed.evaluation.comparison`'s. Must not compute a metric itself.
"""

from __future__ import annotations

from typing import Any

from dpmed.report.figures import Figure
from dpmed.report.headline import mapping
from dpmed.report.numbers import at_most
from dpmed.report.paired import paired_differences
from dpmed.report.plot_difference import difference_figure
from dpmed.report.run_files import RunFiles, Unavailable, is_number, read_run

OUTPUT = "differences_twin.json"
NUM_BOOTSTRAP = 2000


def twin(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """Differences by label and by group on one scale around zero.

    Raises:
        Unavailable: the two runs cannot be compared, with the reason.
    """
    assert run.twin is not None, "the page shows this part only where a twin was named"
    folder = run.folder / "report"
    folder.mkdir(parents=True, exist_ok=True)
    other = read_run(run.twin)
    num_bootstrap = mapping(run.metrics, "settings").get("num_bootstrap")
    differences = paired_differences(
        ("this run", run.folder),
        (run.twin.name, run.twin),
        margin=None,
        num_bootstrap=int(num_bootstrap) if is_number(num_bootstrap) else NUM_BOOTSTRAP,
        output=folder / OUTPUT,
    )
    if differences.reason:
        raise Unavailable(f"The twin {run.twin.name} cannot be compared. {differences.reason}")
    figures.append(difference_figure(differences, name="differences_twin"))
    return {
        "pair": differences,
        "twin": run.twin.name,
        "twin_guarantee": _guarantee(other),
        "different": _other_differences(run, other),
        "file": OUTPUT,
    }


def _guarantee(run: RunFiles) -> str:
    if not run.plan:
        return "guarantee unknown"
    if not run.dp_enabled:
        return "no differential privacy"
    return f"epsilon {at_most(float(run.plan['epsilon']))}"


def _other_differences(run: RunFiles, other: RunFiles) -> list[str]:
    """Groups of settings, besides privacy, in which the two runs differ: no clean comparison."""
    groups = ("seed", "data", "model", "init", "training", "evaluation")
    return [name for name in groups if run.config.get(name) != other.config.get(name)]
