"""`metrics.json`: every number that is reported about a run's predictions.

`evaluate` tells the whole story: thresholds from validation, then for each split (and each
external site) discrimination, subgroups, gaps and calibration, all planned first and then drawn
in one patient bootstrap. The file format is in `schemas/metrics.schema.json`; what cannot be
estimated is null with a reason. Works from predictions alone, without a model or torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd

from dpmed.errors import UserError
from dpmed.evaluation.bootstrap import PatientBootstrap
from dpmed.evaluation.calibration import METRICS, plan_calibration
from dpmed.evaluation.curves import plan_reliability, plan_roc
from dpmed.evaluation.discrimination import plan_discrimination
from dpmed.evaluation.estimability import Minimum, cases
from dpmed.evaluation.estimates import resolve
from dpmed.evaluation.fairness import plan_subgroups
from dpmed.evaluation.gaps import plan_gaps
from dpmed.evaluation.groups import age_edges, assign_groups
from dpmed.evaluation.predictions import LabelColumn, label_column, validate_predictions
from dpmed.evaluation.thresholds import Thresholds, choose_thresholds, threshold_values

FORMAT_VERSION = 1


def evaluate(
    predictions_by_split: Mapping[str, pd.DataFrame],
    *,
    labels: Sequence[str],
    subgroups: Sequence[str] = ("sex", "age"),
    num_bootstrap: int = 2000,
    seed: int = 0,
    min_positives: int = 10,
    min_negatives: int = 10,
    age_bins: str | Sequence[float] = "private_fair_accurate",
    intersections: bool = True,
    prevalence_matched: bool = False,
    confidence: float = 0.95,
    external: Mapping[str, pd.DataFrame] | None = None,
    geometry: Mapping[str, Any] | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """All metrics of a run, in the form of `metrics.json`.

    Args:
        predictions_by_split: predictions by split name; `validation`, where present, gives the
            thresholds and is not itself reported on.
        labels: the labels to report, in order.
        subgroups: columns whose groups are compared; `age` is binned.
        num_bootstrap: resamples of patients; 2,000 or more for figures that are published.
        seed: of the resampling; equal seeds on equal patients give paired resamples.
        min_positives: fewer positive images than this in a group: not estimable.
        min_negatives: likewise.
        age_bins: a preset of `groups.AGE_BINS` or increasing edges in years.
        intersections: also every pair of subgroups.
        prevalence_matched: also accuracy and selection rate of each group at the prevalence of
            the whole split.
        confidence: of the intervals.
        external: predictions on other sites, by site, scored with the same thresholds.
        geometry: entries by name from `geometry` and `probe`, put into the file as they are.
        threads: of the bootstrap; never changes a result.

    Raises:
        UserError: a table is not valid, or a subgroup is no column.
    """
    external = external or {}
    for name, table in {**predictions_by_split, **external}.items():
        validate_predictions(table, labels=labels, source=f"{name} predictions")
    chosen = choose_thresholds(predictions_by_split.get("validation"), labels=labels)
    settings = _Settings(
        labels=labels,
        subgroups=subgroups,
        num_bootstrap=num_bootstrap,
        seed=seed,
        minimum=Minimum(positives=min_positives, negatives=min_negatives),
        age_bins=age_bins,
        intersections=intersections,
        prevalence_matched=prevalence_matched,
        confidence=confidence,
        thresholds=threshold_values(chosen),
        threads=threads,
    )
    splits = {
        name: _evaluate_table(table, settings)
        for name, table in predictions_by_split.items()
        if name != "validation"
    }
    return {
        "format_version": FORMAT_VERSION,
        "covered_by_epsilon": False,
        "settings": settings.as_dict(),
        "thresholds": chosen,
        "splits": splits,
        "calibration": {name: block.pop("calibration") for name, block in splits.items()},
        "gaps": {name: block.pop("gaps") for name, block in splits.items()},
        "external": {site: _evaluate_table(table, settings) for site, table in external.items()},
        "geometry": dict(geometry or {}),
    }


def write_metrics(metrics: Mapping[str, Any], path: Path) -> Path:
    """Checks the metrics against the schema and writes them; a crash leaves the old file."""
    _check(metrics, "metrics")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(metrics, file, indent=1, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return path


def read_metrics(path: Path) -> dict[str, Any]:
    """Reads `metrics.json` and checks it.

    Raises:
        UserError: the file is missing, truncated, or not in the format of the schema.
    """
    path = Path(path)
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"There are no metrics at {path}. Evaluate this run first.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not JSON ({error}). It is probably truncated: evaluate this run again."
        ) from error
    _check(metrics, str(path))
    return metrics


@cache
def metrics_schema() -> dict[str, Any]:
    """The published JSON schema of `metrics.json`."""
    file = resources.files("dpmed.evaluation") / "schemas" / "metrics.schema.json"
    return json.loads(file.read_text(encoding="utf-8"))


@dataclass(frozen=True, kw_only=True)
class _Settings:
    labels: Sequence[str]
    subgroups: Sequence[str]
    num_bootstrap: int
    seed: int
    minimum: Minimum
    age_bins: str | Sequence[float]
    intersections: bool
    prevalence_matched: bool
    confidence: float
    thresholds: Thresholds
    threads: int | None

    def as_dict(self) -> dict[str, Any]:
        """What a reader of the file needs to know to repeat the figures."""
        return {
            "labels": list(self.labels),
            "subgroups": list(self.subgroups),
            "num_bootstrap": self.num_bootstrap,
            "seed": self.seed,
            "min_positives": self.minimum.positives,
            "min_negatives": self.minimum.negatives,
            "age_bins": list(age_edges(self.age_bins)),
            "intersections": self.intersections,
            "prevalence_matched": self.prevalence_matched,
            "confidence": self.confidence,
            "interval": "percentile, patients resampled",
        }


def _evaluate_table(table: pd.DataFrame, settings: _Settings) -> dict[str, Any]:
    bootstrap = PatientBootstrap(
        patient_ids=table["patient_id"].to_numpy(),
        num_replicates=settings.num_bootstrap,
        seed=settings.seed,
        threads=settings.threads,
    )
    columns = [label_column(table, label) for label in settings.labels]
    groups = assign_groups(
        table,
        attributes=settings.subgroups,
        age_bins=settings.age_bins,
        intersections=settings.intersections,
    )
    planned = plan_discrimination(
        bootstrap, columns, settings.thresholds, confidence=settings.confidence
    )
    planned["roc"] = {column.name: plan_roc(bootstrap, cases(column)) for column in columns}
    planned["subgroups"] = plan_subgroups(
        bootstrap,
        columns,
        groups,
        settings.thresholds,
        minimum=settings.minimum,
        prevalence_matched=settings.prevalence_matched,
    )
    planned["gaps"] = plan_gaps(bootstrap, planned["subgroups"])
    planned["calibration"] = _plan_calibration(bootstrap, columns)
    block = resolve(planned, bootstrap.run(), confidence=settings.confidence)
    block["num_images"], block["num_patients"] = len(table), bootstrap.num_patients
    return block


def _plan_calibration(
    bootstrap: PatientBootstrap, columns: Sequence[LabelColumn]
) -> dict[str, Any]:
    by_label = {
        column.name: plan_calibration(bootstrap, "split", cases(column), minimum=Minimum())
        for column in columns
    }
    planned: dict[str, Any] = {
        metric: {label: metrics[metric] for label, metrics in by_label.items()}
        for metric in METRICS
    }
    planned["reliability"] = {
        column.name: plan_reliability(bootstrap, cases(column)) for column in columns
    }
    return planned


def _check(metrics: Mapping[str, Any], source: str) -> None:
    validator = jsonschema.Draft202012Validator(metrics_schema())
    error = jsonschema.exceptions.best_match(validator.iter_errors(metrics))
    if error is not None:
        where = ".".join(str(step) for step in error.absolute_path) or "the top level"
        raise UserError(f"{source}: at {where}, {error.message}. It is no metrics.json of dpmed.")
