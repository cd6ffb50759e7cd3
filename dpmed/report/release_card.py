"""The model card of a released folder, `README.md`: metadata for a hub, then the facts in words.

Unlike the card of a run (`card`), it knows only what is released: without named results there is
no figure in it that was computed from patients' data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dpmed.report.headline import SUMMARIES, mapping
from dpmed.report.numbers import compact, estimate, group_name, label_name, metric_name
from dpmed.report.privacy_section import PLAN_FIELDS

_USE = """\
## Use

```python
import dpmed

model = dpmed.load("FOLDER")  # this folder
model.predict(["image.png"])  # one row an image, one probability a label
```

`dpmed predict FOLDER IMAGES... --output probabilities.csv` does the same on the command line, for
PNG, JPEG and DICOM files. The weights alone also load into timm: \
`timm.create_model("local-dir:FOLDER", pretrained=True)`; then the preprocessing is yours to repeat.
"""
_LIMITS = """\
## Intended use

Research on privacy-preserving training. Not a medical device, and not validated for clinical
decisions. Probabilities hold for images like those of training; on other scanners, patients or
prevalences they shift, so evaluate on your own patients first.
"""
_NOT_PRIVATE = "> **NOT PRIVATE.** Nothing is guaranteed to the people in the training data."
_NOT_COVERED = (
    "Computed from patients' data without noise: epsilon does not cover these figures. They were "
    "released by name."
)


def write_release_card(
    description: Mapping[str, Any],
    plan: Mapping[str, Any],
    results: Mapping[str, Any],
    path: Path,
) -> None:
    """Writes the card.

    Args:
        description: content of the released `config.json`.
        plan: content of `plan.json`.
        results: named parts of `metrics.json`; empty where none was named.
        path: the Markdown file.
    """
    own = description["dpmed"]
    front_matter = yaml.safe_dump(_metadata(description, plan, results), sort_keys=False)
    parts = [
        f"---\n{front_matter}---",
        f"# {own['name']}",
        "" if own["private"] else _NOT_PRIVATE,
        _model(description),
        _USE,
        _privacy(plan),
        _results(results),
        _LIMITS,
    ]
    path.write_text("\n\n".join(part.strip() for part in parts if part) + "\n", encoding="utf-8")


def _metadata(
    description: Mapping[str, Any], plan: Mapping[str, Any], results: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields that a model hub indexes."""
    own = description["dpmed"]
    tags = ["medical-imaging", "dpmed"]
    tags += ["differential-privacy", f"epsilon-{plan['epsilon']:.3g}"] if own["private"] else []
    metadata: dict[str, Any] = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": tags,
    }
    macro = estimate(mapping(results, "auroc").get("macro"))
    if macro.value is not None:
        data_set = own["data_sets_seen"][-1]
        metadata["model-index"] = [
            {
                "name": own["name"],
                "results": [
                    {
                        "task": {"type": "image-classification", "name": own["task"]},
                        "dataset": {"type": data_set, "name": data_set, "split": "test"},
                        "metrics": [
                            {
                                "type": "roc_auc",
                                "name": "Macro AUROC",
                                "value": round(macro.value, 4),
                            }
                        ],
                    }
                ],
            }
        ]
    return metadata


def _model(description: Mapping[str, Any]) -> str:
    own = description["dpmed"]
    start = own["initialisation"]
    history = ", ".join(seen["name"] for seen in start["data_sets"]) or (
        "no data" if start["is_declared"] else "data that its file does not declare"
    )
    steps = ", ".join(f"{name} {value}" for name, value in own["preprocessing"].items())
    licence = f" (licence of these weights: {start['licence']})" if start["licence"] else ""
    lines = [
        "## Model",
        "",
        f"- Architecture: {description['architecture']} of timm, weights: {own['weights']}",
        f"- Answers: {', '.join(label_name(label) for label in own['labels'])}",
        f"- Trained on: {own['data_sets_seen'][-1]}; started from {start['source']} weights that "
        f"had seen {history}{licence}",
        f"- Preprocessing, of each image on its own: {steps}",
        f"- Thresholds: {_thresholds(own['thresholds'])}",
        f"- Code: {own['code_version']}, configuration {own['config_hash']}",
    ]
    return "\n".join(lines)


def _thresholds(values: Mapping[str, float | None] | None) -> str:
    if values is None:
        return "not released; choose them on your own validation patients"
    known = [
        f"{label_name(name)} {value:.4g}" for name, value in values.items() if value is not None
    ]
    return f"{', '.join(known)}; chosen on validation patients and not covered by epsilon"


def _privacy(plan: Mapping[str, Any]) -> str:
    rows = [f"| {name} | {compact(plan[field])} |" for field, (name, _) in PLAN_FIELDS.items()]
    statement = "\n\n".join(plan["statement"].splitlines())
    return "\n".join(["## Privacy", "", statement, "", "| Plan | |", "|---|---|", *rows])


def _results(results: Mapping[str, Any]) -> str:
    if not results:
        return (
            "## Results\n\nNone are released with the model: what is computed from patients' data "
            "is not covered by epsilon."
        )
    lines = ["## Results", "", f"{_NOT_COVERED} All of them are in `results.json`.", ""]
    auroc = mapping(results, "auroc")
    if auroc:
        names = [name for name in auroc if name not in SUMMARIES] + ["macro"]
        lines += [
            "| On the test patients | AUROC (95 % CI) | with | without |",
            "|---|---|---:|---:|",
        ]
        lines += [_row(label_name(name), auroc.get(name)) for name in names]
    subgroups = mapping(results, "subgroups")
    if subgroups:
        lines += ["", "| Group | AUROC (95 % CI) | with | without |", "|---|---|---:|---:|"]
        lines += [
            _row(f"{attribute}: {group_name(attribute, group)}", mapping(block, "auroc")["macro"])
            for attribute, groups in subgroups.items()
            for group, block in groups.items()
            if "macro" in mapping(block, "auroc")
        ]
    others = [metric_name(name) for name in results if name not in ("auroc", "subgroups")]
    lines += ["", f"Also released: {', '.join(others)}."] if others else []
    return "\n".join(lines)


def _row(name: str, entry: object) -> str:
    item = estimate(entry)
    value = item.text if item.value is not None else f"{item.text}: {item.short_reason}"
    counts = [compact(n) if n is not None else "" for n in (item.num_positive, item.num_negative)]
    return f"| {name} | {value} | {counts[0]} | {counts[1]} |"
