"""The names under which a run's results stand in W&B: what is uploaded, and what panels ask for."""

from __future__ import annotations

CONDITION = "condition"
EPSILON = "plan/epsilon"
GAP = "test/gaps/{attribute}/auroc"
CHARTS = {
    "roc": "ROC on the test patients",
    "reliability": "Reliability on the test patients",
}
TABLES = {
    "auroc": "results/auroc",
    "subgroups": "results/subgroups",
    "gaps": "results/gaps",
    "calibration": "results/calibration",
    "external": "results/external",
    "geometry": "results/geometry",
}


def auroc_key(label: str) -> str:
    """The summary entry of one label's AUROC on the test patients."""
    return f"test/auroc/{label}/value"


MACRO = auroc_key("macro")
