"""The part of the page that says what training did to the representation (DP-RGMI).

All values come from `metrics.json`, each beside its meaning. Must not compute a metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpmed.report.figures import Figure
from dpmed.report.headline import mapping
from dpmed.report.numbers import Estimate, estimate, setting_name
from dpmed.report.run_files import RunFiles, Unavailable, is_number

INITIAL = "initial_"
# Source of the first, sixth and last three: DP-RGMI, arXiv 2603.01098.
MEANINGS = {
    "displacement": "mean squared distance of unit embeddings from their start, 0 to 4",
    "scale_normalised_drift": "displacement over the initial embeddings' own spread",
    "cosine_drift": "one minus the mean cosine to the start",
    "procrustes_residual": "what is left of the drift after the best rotation",
    "linear_cka": "similarity of the two representations; 1 is equal up to rotation and scale",
    "effective_dimension": "(tr S)² / ‖S‖², S the centred covariance; number of used directions",
    "effective_rank_eigenvalues": "exponential entropy of the eigenvalues",
    "effective_rank_singular_values": "exponential entropy of the singular values",
    "rankme": "exponential entropy of the uncentred singular values (RankMe)",
    "alpha_req": "decay of the eigenvalue spectrum (alpha-ReQ)",
    "probe_utility": "macro AUROC of a linear probe; trained on labels without privacy",
    "end_to_end_utility": "macro AUROC of the trained head",
    "utilisation_gap": "probe utility minus end-to-end utility",
}


@dataclass(frozen=True, kw_only=True)
class GeometryRow:
    """One metric: of the trained encoder or of the drift, and at the start where it exists."""

    name: str
    meaning: str
    trained: Estimate
    initial: Estimate | None


def geometry(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """One row a metric.

    Raises:
        Unavailable: no embeddings were measured.
    """
    del figures
    run.need("metrics.json")
    found = mapping(run.metrics, "geometry")
    names = [name for name in found if not name.startswith(INITIAL)]
    if not names:
        raise Unavailable("This run measured no representation geometry.")
    rows = [
        GeometryRow(
            name=setting_name(name),
            meaning=MEANINGS.get(name, ""),
            trained=estimate(found[name]),
            initial=estimate(found[INITIAL + name]) if INITIAL + name in found else None,
        )
        for name in names
    ]
    return {"rows": rows, "size": _size(found)}


def _size(found: Mapping[str, Any]) -> str:
    for entry in found.values():
        fields = mapping({"entry": entry}, "entry")
        images, patients = fields.get("num_images"), fields.get("num_patients")
        if is_number(images) and is_number(patients):
            return f"{images:,} images of {patients:,} patients"
    return ""
