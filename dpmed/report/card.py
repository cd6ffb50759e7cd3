"""The model card `report/report.md`: metadata for a hub, and the page's main facts as Markdown.

Works from files. Evaluation figures in it are not covered by epsilon, and it says so beside them.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import yaml

from dpmed.report.headline import (
    SUMMARIES,
    headline,
    macro_by_group,
    mapping,
    reported_split,
    split_size,
)
from dpmed.report.numbers import Estimate, compact, estimate, group_name, label_name
from dpmed.report.privacy_section import PLAN_FIELDS
from dpmed.report.run_files import RunFiles

_MARKDOWN_SPECIAL = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_{}[]#|"})


def write_card(run: RunFiles, path: Path) -> None:
    """Writes the model card.

    Args:
        run: the run; what it lacks is said in place.
        path: the Markdown file.
    """
    front_matter = yaml.safe_dump(_metadata(run), sort_keys=False)
    parts = [f"---\n{front_matter}---", f"# {_plain(_name(run))}", _headline(run)]
    parts += [_stamp(run), _results(run), _groups(run), _plan(run), _limits()]
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def _name(run: RunFiles) -> str:
    return str(run.run.get("experiment") or run.folder.name)


def _metadata(run: RunFiles) -> dict[str, Any]:
    """The fields that a model hub indexes."""
    split, results = reported_split(run)
    data_set = _identifier(str(run.data_sheet.get("name", "not reported")))
    macro = estimate(mapping(results, "auroc").get("macro"))
    metadata: dict[str, Any] = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["medical-imaging", "chest-x-ray", "dpmed"],
    }
    if run.is_private:
        metadata["tags"] += ["differential-privacy", f"epsilon-{run.plan['epsilon']:g}"]
    if macro.value is not None:
        metadata["model-index"] = [
            {
                "name": _identifier(_name(run)),
                "results": [
                    {
                        "task": {
                            "type": "image-classification",
                            "name": "Multi-label classification",
                        },
                        "dataset": {"type": data_set, "name": data_set, "split": split},
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


def _headline(run: RunFiles) -> str:
    return "\n\n".join(
        f"**{item.question}** {_plain(item.answer)} {_plain(item.detail)}".rstrip()
        for item in headline(run)
    )


def _stamp(run: RunFiles) -> str:
    return "" if run.is_private else "> **NOT PRIVATE.** This model carries no privacy guarantee."


def _results(run: RunFiles) -> str:
    split, results = reported_split(run)
    auroc = mapping(results, "auroc")
    if not auroc:
        return (
            f"## Results\n\n{_plain(run.problems.get('metrics.json', 'No metrics were written.'))}"
        )
    names = [name for name in auroc if name not in SUMMARIES] + ["macro"]
    rows = [(label_name(name), estimate(auroc.get(name))) for name in names]
    size = split_size(run, split)
    return f"## Results\n\nOn {size}; not covered by epsilon.\n\n{_table('Label', rows)}"


def _groups(run: RunFiles) -> str:
    _, results = reported_split(run)
    rows = [
        (f"{attribute}: {group_name(attribute, group)}", item)
        for (attribute, group), item in macro_by_group(results)
    ]
    return f"## Groups, mean over labels\n\n{_table('Group', rows)}" if rows else ""


def _table(first: str, rows: list[tuple[str, Estimate]]) -> str:
    lines = [f"| {first} | AUROC (95 % CI) | with | without |", "|---|---|---:|---:|"]
    for name, item in rows:
        value = item.text if item.value is not None else f"{item.text}: {_plain(item.short_reason)}"
        counts = [
            compact(n) if n is not None else "" for n in (item.num_positive, item.num_negative)
        ]
        lines.append(f"| {_plain(name)} | {value} | {counts[0]} | {counts[1]} |")
    return "\n".join(lines)


def _plan(run: RunFiles) -> str:
    if not run.plan:
        return f"## Privacy\n\n{_plain(run.problems['plan.json'])}"
    statement = _plain(str(run.plan.get("statement") or "The plan holds no statement in words."))
    rows = [
        f"| {name} | {_plain(compact(run.plan.get(field)))} |"
        for field, (name, _) in PLAN_FIELDS.items()
    ]
    return "\n".join(["## Privacy", "", statement, "", "| Plan | |", "|---|---|", *rows])


def _limits() -> str:
    return (
        "## Intended use\n\nResearch on privacy-preserving training. Not a medical device, and not "
        "validated for clinical decisions. Evaluation figures, thresholds and prevalences in this "
        "card were computed from patients' data without noise: epsilon does not cover them."
    )


def _identifier(text: str) -> str:
    """A name for the front matter, which hubs show without escaping."""
    return re.sub(r"[^\w .,:+()/-]", "_", text)


def _plain(text: str) -> str:
    """Text that Markdown and HTML readers show as it is."""
    return " ".join(html.escape(text, quote=False).translate(_MARKDOWN_SPECIAL).split())
