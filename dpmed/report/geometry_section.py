"""The part of the page that says what training did to the representation (DP-RGMI).

All values come from `metrics.json`, each beside its meaning: of the trained encoder, of the initial
one, and of the twin where one is named. Must not compute a metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpmed.report.figures import Figure
from dpmed.report.forest import ForestBlock, ForestRow, ForestTable
from dpmed.report.headline import mapping
from dpmed.report.numbers import (
    Estimate,
    compact,
    estimate,
    group_name,
    label_name,
    setting_name,
)
from dpmed.report.plot_intervals import auroc_scale, interval_figure
from dpmed.report.plot_stages import stage_figures
from dpmed.report.redaction import known_patient_ids, redact_text
from dpmed.report.run_files import RunFiles, Unavailable, is_number, read_run

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
    "end_to_end_utility": "macro AUROC of the trained head, on the embedded images",
    "utilisation_gap": "probe utility minus end-to-end utility",
    "private_probe_utility": "macro AUROC of a linear probe trained with differential privacy",
    "private_probe_gap": "private probe utility minus end-to-end utility",
}
NAMES = {
    "scale_normalised_drift": "Scale-normalised drift",
    "linear_cka": "Linear CKA",
    "effective_rank_eigenvalues": "Effective rank, of eigenvalues",
    "effective_rank_singular_values": "Effective rank, of singular values",
    "rankme": "RankMe",
    "alpha_req": "alpha-ReQ",
    "end_to_end_utility": "End-to-end utility",
}
PARTS = ("stages", "subgroups", "private_probe", "unavailable")
OF_PARTS = ("displacement", "linear_cka", "effective_dimension", "initial_effective_dimension")
_UTILITIES = (
    ("Linear probe", "At the start", "initial_probe_utility"),
    ("Linear probe", "After training", "probe_utility"),
    ("Linear probe", "After training, private", "private_probe_utility"),
    ("Head", "At the start", "initial_end_to_end_utility"),
    ("Head", "After training", "end_to_end_utility"),
)


@dataclass(frozen=True, kw_only=True)
class GeometryRow:
    """One metric: of the trained encoder or of the drift, at the start, and of the twin."""

    name: str
    meaning: str
    trained: Estimate
    initial: Estimate | None
    twin: Estimate | None


def geometry(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """Every metric as a row, the utilities and the stages as plots, the groups as a table.

    Raises:
        Unavailable: no embeddings were measured.
    """
    run.need("metrics.json")
    found = mapping(run.metrics, "geometry")
    reasons = _reasons(run, found)
    names = [name for name in found if name not in PARTS and not name.startswith(INITIAL)]
    if not names:
        raise Unavailable(" ".join(reasons) or "This run measured no representation geometry.")
    twin = _twin(run)
    utilities = _utilities(found, twin)
    if utilities is not None:
        title = "AUROC, mean over labels"
        figures.append(interval_figure(utilities.interval_rows(), name="utilities", title=title))
    drawn = stage_figures(mapping(found, "stages"))
    figures.extend(drawn)
    return {
        "rows": [_row(name, found, twin) for name in names],
        "has_twin": bool(twin),
        "size": _size(found),
        "utilities": utilities,
        "stages": drawn,
        "parts": [part for part in (_stages(found), *_groups(found)) if part is not None],
        "private_probe": _guarantee(mapping(found, "private_probe")),
        "reasons": reasons,
    }


def metric_title(name: str) -> str:
    """A geometry metric in words."""
    if name.startswith(INITIAL):
        return f"{metric_title(name.removeprefix(INITIAL))}, at the start"
    return NAMES.get(name, setting_name(name))


def _row(name: str, found: Mapping[str, Any], twin: Mapping[str, Any]) -> GeometryRow:
    return GeometryRow(
        name=metric_title(name),
        meaning=MEANINGS.get(name, ""),
        trained=estimate(found[name]),
        initial=estimate(found[INITIAL + name]) if INITIAL + name in found else None,
        twin=estimate(twin[name]) if name in twin else None,
    )


def _utilities(found: Mapping[str, Any], twin: Mapping[str, Any]) -> ForestTable | None:
    """What can be read from the representation, and what the head makes of it."""
    blocks = []
    for heading in ("Linear probe", "Head"):
        wanted = [(name, found, key) for block, name, key in _UTILITIES if block == heading]
        wanted.append(("Twin, after training", twin, wanted[1][2]))
        rows = [
            ForestRow(name=name, main=estimate(tree[key]))
            for name, tree, key in wanted
            if key in tree
        ]
        if rows:
            blocks.append(ForestBlock(title=heading, rows=rows))
    if not blocks:
        return None
    return ForestTable(
        caption="What can be read from the embeddings, and what the head makes of it",
        first="Mean over labels",
        blocks=blocks,
        scale=auroc_scale([row.main for block in blocks for row in block.rows]),
        reference=0.5,
    )


def _stages(found: Mapping[str, Any]) -> tuple[str, str, list[str], list[Any]] | None:
    stages = mapping(found, "stages")
    if not stages:
        return None
    return _table("Along the network", "After", {setting_name(n): s for n, s in stages.items()})


def _groups(found: Mapping[str, Any]) -> list[tuple[str, str, list[str], list[Any]] | None]:
    groups = mapping(found, "subgroups")
    return [
        _table(
            f"By {label_name(attribute).lower()}",
            label_name(attribute),
            {group_name(attribute, str(name)): entry for name, entry in by_group.items()},
        )
        for attribute, by_group in groups.items()
        if isinstance(by_group, Mapping) and by_group
    ]


def _table(
    caption: str, first: str, by_name: Mapping[str, Any]
) -> tuple[str, str, list[str], list[Any]]:
    rows = [
        (
            f"{name}{_counted(fields)}",
            [estimate(mapping({"of": fields}, "of").get(metric)) for metric in OF_PARTS],
        )
        for name, fields in by_name.items()
    ]
    return caption, first, [metric_title(metric) for metric in OF_PARTS], rows


def _counted(fields: object) -> str:
    images = mapping({"of": fields}, "of", OF_PARTS[0]).get("num_images")
    return f" ({images:,} images)" if is_number(images) else ""


def _twin(run: RunFiles) -> Mapping[str, Any]:
    return {} if run.twin is None else mapping(read_run(run.twin).metrics, "geometry")


def _reasons(run: RunFiles, found: Mapping[str, Any]) -> list[str]:
    unavailable = mapping(found, "unavailable")
    if not unavailable:
        return []
    ids = known_patient_ids(run.folder)
    return [
        redact_text(f"{str(part).capitalize()}: {reason}", ids)
        for part, reason in unavailable.items()
    ]


def _guarantee(facts: Mapping[str, Any]) -> str:
    if not facts:
        return ""
    return (
        f"The private probe alone is epsilon {compact(facts.get('epsilon'))}, delta "
        f"{compact(facts.get('delta'))} for each training {facts.get('unit', 'patient')}; with "
        "this encoder, which saw the same patients, the two budgets add up. Neither probe is "
        "released."
    )


def _size(found: Mapping[str, Any]) -> str:
    for entry in found.values():
        fields = mapping({"entry": entry}, "entry")
        images, patients = fields.get("num_images"), fields.get("num_patients")
        if is_number(images) and is_number(patients):
            return f"{images:,} images of {patients:,} patients"
    return ""
