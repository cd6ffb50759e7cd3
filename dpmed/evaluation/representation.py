"""The geometry of a run's representation (DP-RGMI), from the files of its folder alone.

Both encoders' embeddings of the test images give drift and spectra, of all images, of each stage
and of each group; with those of the training images and the predictions they give probe utility,
end-to-end utility and the gap between them, of the trained encoder, of the initial one
(`initial_...`), and of a probe that is itself private. What a missing or damaged file takes away
is said by name; the rest stays. Never imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dpmed.errors import UserError
from dpmed.evaluation.geometry import measure_geometry
from dpmed.evaluation.groups import NOT_COMPARED, assign_groups
from dpmed.evaluation.predictions import match_predictions, read_predictions
from dpmed.evaluation.probe import measure_utilisation, probe_predictions, unit_embeddings

NUM_STAGES = 4
GROUP_PARTS = 10  # of a group's jackknife: groups are many, and small
FEWEST_PATIENTS = 20  # of a group; fewer have no spectrum worth a number


@dataclass(frozen=True)
class RepresentationFiles:
    """Where a run folder keeps embeddings and what belongs to them."""

    run_dir: Path

    def embeddings(self, encoder: str, split: str, stage: int | None = None) -> Path:
        """Of `initial` or `trained`; of the pooled embedding, or of a stage from 1."""
        suffix = "" if stage is None else f"_stage{stage}"
        return self.run_dir / "embeddings" / f"{encoder}_{split}{suffix}.npy"

    def predictions(self, encoder: str, split: str) -> Path:
        """Those of the initial model hold the embedded images, row by row."""
        prefix = "initial_" if encoder == "initial" else ""
        return self.run_dir / "predictions" / f"{prefix}{split}.parquet"

    @property
    def private_probe_predictions(self) -> Path:
        """Test predictions of the probe that was trained with differential privacy."""
        return self.run_dir / "predictions" / "private_probe_test.parquet"

    @property
    def private_probe_facts(self) -> Path:
        """What that probe guarantees."""
        return self.run_dir / "embeddings" / "private_probe.json"

    @property
    def exist(self) -> bool:
        """Whether any embeddings were written at all."""
        return (self.run_dir / "embeddings").is_dir()


@dataclass(frozen=True, kw_only=True)
class _Scope:
    """What every part below needs: the embedded test images and how to resample them."""

    files: RepresentationFiles
    test: pd.DataFrame
    labels: Sequence[str]
    num_bootstrap: int
    seed: int
    confidence: float

    def geometry(self, stage: int | None = None, **options: Any) -> dict[str, Any]:
        return measure_geometry(
            self.files.embeddings("initial", "test", stage),
            self.files.embeddings("trained", "test", stage),
            patient_ids=self.test["patient_id"].to_numpy(),
            seed=self.seed,
            confidence=self.confidence,
            **options,
        )

    def utilisation(self, probed: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, Any]:
        return measure_utilisation(
            probed,
            predictions,
            labels=self.labels,
            num_bootstrap=self.num_bootstrap,
            seed=self.seed,
            confidence=self.confidence,
        )


def measure_representation(
    run_dir: Path,
    *,
    labels: Sequence[str],
    subgroups: Sequence[str] = (),
    age_bins: str | Sequence[float] = "private_fair_accurate",
    num_bootstrap: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """The `geometry` of `metrics.json`; empty where a run kept no embeddings.

    Args:
        run_dir: a run folder.
        labels: of the utilities.
        subgroups: columns whose groups get a geometry of their own.
        age_bins: a preset or edges, as in `metrics.evaluate`.
        num_bootstrap: resamples of patients, for the utilities.
        seed: of resamples and of the jackknife's parts.
        confidence: of the intervals.

    Returns:
        `<metric>` as `geometry.measure_geometry` and `probe.measure_utilisation` name them, with
        the initial encoder's as `initial_<metric>` and the private probe's as
        `private_probe_utility` and `private_probe_gap`; `stages.<stage>.<metric>`;
        `subgroups.<attribute>.<group>.<metric>`; `private_probe`, its guarantee; and
        `unavailable.<part>`, a reason for each part that the files do not give.
    """
    files = RepresentationFiles(Path(run_dir))
    if not files.exist:
        return {}
    found: dict[str, Any] = {}
    unavailable: dict[str, str] = {}

    def attempt(part: str, measure: Callable[[], dict[str, Any]]) -> None:
        try:
            found.update(measure())
        except UserError as error:
            unavailable[part] = str(error)

    try:
        test = read_predictions(files.predictions("initial", "test"), labels=labels)
    except UserError as error:
        return {"unavailable": {"representation": str(error)}}
    scope = _Scope(
        files=files,
        test=test,
        labels=labels,
        num_bootstrap=num_bootstrap,
        seed=seed,
        confidence=confidence,
    )
    attempt("drift and spectra", scope.geometry)
    attempt("utilities of the trained encoder", lambda: _trained_utilities(scope))
    attempt("utilities of the initial encoder", lambda: _initial_utilities(scope))
    attempt("private probe", lambda: _private_probe(scope))
    attempt("stages", lambda: _stages(scope))
    attempt("subgroups", lambda: _subgroups(scope, subgroups, age_bins))
    return found | ({"unavailable": unavailable} if unavailable else {})


def _trained_utilities(scope: _Scope) -> dict[str, Any]:
    return scope.utilisation(_probed(scope, "trained"), _trained_predictions(scope))


def _initial_utilities(scope: _Scope) -> dict[str, Any]:
    found = scope.utilisation(_probed(scope, "initial"), scope.test)
    return {f"initial_{name}": entry for name, entry in found.items()}


def _private_probe(scope: _Scope) -> dict[str, Any]:
    path = scope.files.private_probe_predictions
    if not path.exists():
        return {}
    probed = match_predictions(
        read_predictions(path, labels=scope.labels), scope.test["image"], source=str(path)
    )
    found = scope.utilisation(probed, _trained_predictions(scope))
    facts = scope.files.private_probe_facts
    try:
        guarantee = json.loads(facts.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{facts} cannot be read ({error}). Evaluate this run again.") from error
    return {
        "private_probe_utility": found["probe_utility"],
        "private_probe_gap": found["utilisation_gap"],
        "private_probe": guarantee,
    }


def _stages(scope: _Scope) -> dict[str, Any]:
    stages = [
        stage
        for stage in range(1, NUM_STAGES + 1)
        if scope.files.embeddings("trained", "test", stage).exists()
    ]
    if not stages:
        return {}
    return {"stages": {f"stage {stage}": scope.geometry(stage) for stage in stages}}


def _subgroups(
    scope: _Scope, attributes: Sequence[str], age_bins: str | Sequence[float]
) -> dict[str, Any]:
    groups = assign_groups(
        scope.test, attributes=attributes, age_bins=age_bins, intersections=False
    )
    patients = scope.test["patient_id"].to_numpy(str)
    return {
        "subgroups": {
            attribute: {
                str(group): scope.geometry(member_N=group_N == group, num_parts=GROUP_PARTS)
                for group in np.unique(group_N)
                if group not in NOT_COMPARED
                and len(np.unique(patients[group_N == group])) >= FEWEST_PATIENTS
            }
            for attribute, group_N in groups.items()
        }
    }


def _probed(scope: _Scope, encoder: str) -> pd.DataFrame:
    """Test predictions of a linear probe on one encoder's embeddings of the training images."""
    train = read_predictions(scope.files.predictions("initial", "train"), labels=scope.labels)
    train_ND, test_ND = (
        unit_embeddings(scope.files.embeddings(encoder, split)) for split in ("train", "test")
    )
    return probe_predictions(train_ND, train, test_ND, scope.test, labels=scope.labels)


def _trained_predictions(scope: _Scope) -> pd.DataFrame:
    """The trained head's predictions of the embedded images, in their order."""
    path = scope.files.predictions("trained", "test")
    predictions = read_predictions(path, labels=scope.labels)
    embedded = predictions[predictions["image"].isin(scope.test["image"])]
    return match_predictions(embedded, scope.test["image"], source=str(path))
