"""The disclosure checklist, filled in by the machine: "not reported" unless a file says it.

Fields after the reporting gaps of the scoping review arXiv 2506.00660 (74 studies). Must not guess:
a setting that no file holds stays "not reported".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmed.report.figures import Figure
from dpmed.report.headline import mapping, reported_split
from dpmed.report.numbers import at_most, compact
from dpmed.report.run_files import RunFiles

NOT_REPORTED = "not reported"
Row = tuple[str, str, bool]


def checklist(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """Blocks of (question, answer, whether it is reported)."""
    del figures
    return {
        "blocks": [
            ("Privacy guarantee", _guarantee(run)),
            ("Mechanism", _mechanism(run)),
            ("Data and model", _data_and_model(run)),
            ("Utility and fairness", _utility(run)),
            ("Reproducibility and release", _reproducibility(run)),
        ]
    }


def _row(question: str, value: object) -> Row:
    is_reported = value is not None and value != "" and value != [] and value != {}
    return question, compact(value) if is_reported else NOT_REPORTED, is_reported


def _guarantee(run: RunFiles) -> list[Row]:
    plan = run.plan
    private = None if not plan else run.is_private
    return [
        _row("Differentially private as run", private),
        _row("Unit of privacy", plan.get("unit")),
        _row("Adjacency", str(plan.get("adjacency") or "").replace("_", " ")),
        _row("Epsilon", at_most(plan["epsilon"]) if run.dp_enabled else None),
        _row("Delta", plan.get("delta")),
        _row("Delta below 1/N", _delta_below(plan)),
        _row("Trust model", "central: the training site holds the data" if plan else None),
        _row("Accountant", plan.get("accountant")),
        _row("Budget of hyperparameter tuning included", plan.get("tuning_included")),
        _row("Empirical attack or audit", plan.get("audit")),
    ]


def _mechanism(run: RunFiles) -> list[Row]:
    plan = run.plan
    return [
        _row("Clip norm", plan.get("max_grad_norm")),
        _row("Clipping rule", plan.get("clipping_rule")),
        _row("Noise multiplier", plan.get("noise_multiplier")),
        _row("Sampling", plan.get("sampling")),
        _row("Sample rate", plan.get("sample_rate")),
        _row("Expected batch size", plan.get("expected_batch_size")),
        _row("Logical steps", plan.get("num_steps")),
        _row("Images of a unit in a step, at most", plan.get("views_per_unit")),
        _row("Source of noise", plan.get("randomness")),
    ]


def _data_and_model(run: RunFiles) -> list[Row]:
    facts, sheet = run.run, run.data_sheet
    train = mapping(sheet, "splits", "train")
    init = facts.get("init")
    source = init.get("source") if isinstance(init, Mapping) else init
    return [
        _row("Data set", sheet.get("name")),
        _row("Training patients", train.get("num_patients")),
        _row("Training images", train.get("num_images")),
        _row("Patients kept within one split", "checked" if facts.get("split_hash") else None),
        _row("Architecture", facts.get("model")),
        _row("Parameters trained", facts.get("num_trainable")),
        _row("Initialisation", source),
        _row("Preprocessing", ", ".join(mapping(sheet, "preprocessing"))),
    ]


def _utility(run: RunFiles) -> list[Row]:
    split, results = reported_split(run)
    has_intervals = mapping(results, "auroc", "macro").get("ci_low") is not None
    return [
        _row("Utility metric", "AUROC" if results.get("auroc") else None),
        _row("Intervals", "95 %, patients resampled" if has_intervals else None),
        _row("Subgroups", ", ".join(mapping(results, "subgroups"))),
        _row("Calibration", "yes" if mapping(run.metrics, "calibration", split) else None),
        _row("External evaluation", ", ".join(mapping(run.metrics, "external"))),
        _row("Comparison with a twin", run.twin.name if run.twin is not None else None),
        _row("Representation geometry", "yes" if mapping(run.metrics, "geometry") else None),
    ]


def _reproducibility(run: RunFiles) -> list[Row]:
    facts = run.run
    return [
        _row("Code version", facts.get("code_version")),
        _row("Configuration hash", facts.get("config_hash")),
        _row("Split hash", facts.get("split_hash")),
        _row("Library versions", "listed below" if facts.get("versions") else None),
        _row("Training time", mapping(facts, "seconds").get("training")),
        _row("Hardware", facts.get("device")),
    ]


def _delta_below(plan: Mapping[str, Any]) -> bool | None:
    delta, num_units = plan.get("delta"), plan.get("num_units")
    if not isinstance(delta, (int, float)) or not isinstance(num_units, (int, float)):
        return None
    return bool(num_units and delta < 1 / num_units)
