"""What may leave a run: the weights, the plan with its statement, how to use them, named results.

Everything else in a run folder is as sensitive as the data. Results computed from patients' data
are not covered by epsilon, so each kind leaves only when it is named. The folder is one that a
model hub takes: timm loads its weights, and `dpmed.load` the model with its preprocessing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import dpmed
from dpmed import data, models
from dpmed.config import RunConfig
from dpmed.data.decoding import DECODING_VERSION
from dpmed.errors import UserError, did_you_mean
from dpmed.evaluation.metrics import read_metrics
from dpmed.models.weights import sha256_of
from dpmed.privacy.plan import PrivacyPlan
from dpmed.report.release_card import write_release_card
from dpmed.stages.finished_run import read_completed_record, read_config
from dpmed.stages.training import AVERAGED_WEIGHTS, WEIGHTS

CONFIG, PLAN, RESULTS, CARD = "config.json", "plan.json", "results.json", "README.md"
FORMAT_VERSION = 1
RESULT_KINDS = {
    "auroc": ("splits", "test", "auroc"),
    "subgroups": ("splits", "test", "subgroups"),
    "gaps": ("gaps", "test"),
    "calibration": ("calibration", "test"),
    "external": ("external",),
    "geometry": ("geometry",),
    "thresholds": ("thresholds",),
}


def release_run(
    run_dir: Path,
    output: Path,
    *,
    results: Sequence[str] = (),
    weights: Literal["last", "average"] = "last",
    without_guarantee: bool = False,
) -> Path:
    """Writes the folder that may be given away; a whole folder or none.

    Args:
        run_dir: a completed run.
        output: a folder that does not exist yet, or is empty.
        results: names of `RESULT_KINDS`; what is not named does not leave the run.
        weights: those after the last step, or their average over steps (`training.ema_decay`).
        without_guarantee: allow a run that guarantees nothing; every file then says so.

    Returns:
        `output`.

    Raises:
        UserError: an unfinished run, one whose guarantee does not hold, or an unknown name.

    Guarantee:
        Nothing of `private/`, no prediction, image name, patient id or side output of training is
        written; without `results`, nothing that epsilon does not cover.
    """
    config, record = read_config(run_dir), read_completed_record(run_dir)
    plan = PrivacyPlan.from_json(run_dir / "plan.json")
    _check_steps(run_dir, record, plan)
    if config.model.kind != "2d":
        raise UserError(
            f"model.kind={config.model.kind}: dpmed release writes models of images. The weights of"
            f" this model of volumes are {run_dir / WEIGHTS}, the guarantee is {run_dir / PLAN}."
        )
    _check_guarantee(run_dir, plan, without_guarantee=without_guarantee)
    named = _named_results(run_dir, results)
    source = _weights_file(run_dir, weights)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output} exists already. Name a folder that is new or empty.")
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shutil.copyfile(source, partial / WEIGHTS.name)
    shutil.copyfile(run_dir / PLAN, partial / PLAN)
    description = _description(config, record, plan, partial / WEIGHTS.name, weights, named)
    _write_json(description, partial / CONFIG)
    if named:
        _write_json({"covered_by_epsilon": False, **named}, partial / RESULTS)
    write_release_card(description, _read_json(partial / PLAN), named, partial / CARD)
    if output.exists():
        output.rmdir()
    partial.rename(output)
    return output


def _check_steps(run_dir: Path, record: Mapping[str, Any], plan: PrivacyPlan) -> None:
    planned = plan.num_steps - len(record.get("charged_steps", []))
    if record.get("steps_done") != planned:
        raise UserError(
            f"{run_dir} took {record.get('steps_done')} of {planned} steps. Its weights are not "
            "those that the plan speaks of."
        )
    if any((run_dir / "private").glob("*")):
        raise UserError(
            f"{run_dir / 'private'} still holds the secret key, with which the noise can be taken "
            "off the weights. A completed run has destroyed it: find out why it is there, and "
            "delete it before anything is released."
        )


def _check_guarantee(run_dir: Path, plan: PrivacyPlan, *, without_guarantee: bool) -> None:
    if plan.private or without_guarantee:
        return
    why = (
        "its noise came from an injected key, so it can be taken off"
        if plan.enabled
        else "it was trained without differential privacy"
    )
    raise UserError(
        f"{run_dir} guarantees nothing to its patients: {why}. Where that is meant (weights of "
        "public data, for example), add --without-guarantee: every file is then stamped "
        "NOT PRIVATE."
    )


def _named_results(run_dir: Path, names: Sequence[str]) -> dict[str, Any]:
    for name in names:
        if name not in RESULT_KINDS:
            raise UserError(
                f"--results {name}: no such result.{did_you_mean(name, RESULT_KINDS)} Available: "
                f"{', '.join(RESULT_KINDS)}."
            )
    if not names:
        return {}
    metrics = read_metrics(run_dir / "metrics.json")
    return {name: _part(metrics, RESULT_KINDS[name], name, run_dir) for name in names}


def _part(metrics: Mapping[str, Any], path: Sequence[str], name: str, run_dir: Path) -> Any:
    node: Any = metrics
    for step in path:
        node = node.get(step, {})
    if not node:
        raise UserError(f"--results {name}: {run_dir / 'metrics.json'} holds no {name}.")
    return node


def _weights_file(run_dir: Path, weights: str) -> Path:
    path = run_dir / (WEIGHTS if weights == "last" else AVERAGED_WEIGHTS)
    if not path.is_file():
        hint = " It needs training.ema_decay above 0." if weights == "average" else ""
        raise UserError(f"{path} is missing, so there is nothing to release.{hint}")
    return path


def _description(
    config: RunConfig,
    record: Mapping[str, Any],
    plan: PrivacyPlan,
    weights_file: Path,
    weights: str,
    named: Mapping[str, Any],
) -> dict[str, Any]:
    """`config.json`: the fields that timm reads, and under `dpmed` what the model needs besides."""
    model, size = config.model, config.data.preprocessing.image_size
    preprocessing = data.Preprocessing(**asdict(config.data.preprocessing))
    provenance = models.read_provenance(weights_file)
    assert provenance is not None, "an exported model declares its history"
    assert not (plan.private and provenance.data_sets[-1].patient_hashes), (
        "hashes of the training patients must not leave with the weights"
    )
    return {
        "architecture": model.name,
        "num_classes": len(config.data.labels),
        "model_args": {"in_chans": model.in_chans, "ls_init_value": model.ls_init_value},
        "label_names": list(config.data.labels),
        "pretrained_cfg": {
            "input_size": [model.in_chans, size, size],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": [model.input_mean] * model.in_chans,
            "std": [model.input_std] * model.in_chans,
            "num_classes": len(config.data.labels),
            "first_conv": "stem.0",
            "classifier": "head.fc",
        },
        "dpmed": {
            "format_version": FORMAT_VERSION,
            "name": config.name,
            "task": "multi-label: an independent probability for each label",
            "labels": list(config.data.labels),
            "preprocessing": preprocessing.describe(),
            "decoding_version": DECODING_VERSION,
            "input_mean": model.input_mean,
            "input_std": model.input_std,
            "weights": weights,
            "weights_sha256": sha256_of(weights_file),
            "thresholds": _threshold_values(named),
            "private": plan.private,
            "privacy": _guarantee(plan),
            "initialisation": record["init"],
            "data_sets_seen": [seen.name for seen in provenance.data_sets],
            "code_version": record["code_version"],
            "config_hash": config.config_hash,
            "released_by": f"dpmed {dpmed.__version__}",
        },
    }


def _threshold_values(named: Mapping[str, Any]) -> dict[str, float | None] | None:
    """Decision thresholds, where they were named: they come from validation patients."""
    if "thresholds" not in named:
        return None
    return {label: entry["value"] for label, entry in named["thresholds"].items()}


def _guarantee(plan: PrivacyPlan) -> dict[str, Any] | None:
    if not plan.private:
        return None
    return {"unit": plan.unit, "epsilon": plan.epsilon, "delta": plan.delta}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}).") from None


def _write_json(content: Mapping[str, Any], path: Path) -> None:
    text = json.dumps(content, indent=2, allow_nan=False)
    path.write_text(f"{text}\n", encoding="utf-8")
