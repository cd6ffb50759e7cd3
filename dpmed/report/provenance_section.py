"""The parts of the page that say what was trained, on what, and with which settings and versions.

Text that a user or a file wrote passes through `redaction`. Must not read an image except the
contact sheet of data that the data sheet declares synthetic.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import yaml

from dpmed.report.figures import Figure
from dpmed.report.headline import mapping
from dpmed.report.numbers import compact, group_name, label_name, setting_name
from dpmed.report.redaction import known_patient_ids, redact_file_name, redact_settings, redact_text
from dpmed.report.run_files import RunFiles, is_number

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TRAINING_SETTINGS = (
    "num_steps", "optimizer", "learning_rate", "weight_decay", "schedule", "warmup_steps",
    "ema_decay", "permute_labels", "pretraining",
)  # fmt: skip
_INIT_NAMES = {"num_loaded": "Parameters loaded", "num_rebuilt": "Parameters at random"}
_AGE_STATISTICS = ("mean", "standard_deviation", "median", "minimum", "maximum", "missing")


def training(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """Model, trainable part, initialisation with its history, schedule and cost.

    Raises:
        Unavailable: there is no run.json.
    """
    del figures
    facts = run.need("run.json")
    total, trained = facts.get("num_parameters"), facts.get("num_trainable")
    share = (
        f" ({100 * trained / total:.1f} %)"
        if is_number(total) and is_number(trained) and total
        else ""
    )
    model = [
        ("Model", compact(facts.get("model", "not reported"))),
        ("Image size", f"{compact(facts.get('image_size', 'not reported'))} px"),
        ("Parameters", compact(total) if is_number(total) else "not reported"),
        ("Trained", f"{compact(facts.get('trainable', 'not reported'))}"
         + (f", {compact(trained)} parameters{share}" if is_number(trained) else "")),
        ("Steps done", compact(facts.get("steps_done", "not reported"))),
        ("Clipping", compact(facts.get("clipping_engine", "not reported"))),
        ("Proof at start-up", compact(facts.get("clipping_proof", "not reported"))),
        ("Device", compact(facts.get("device", "not reported"))),
        ("Precision", compact(facts.get("precision", "not reported"))),
        ("Seconds", _seconds(facts.get("seconds"))),
    ]  # fmt: skip
    settings = mapping(run.config, "training")
    schedule = [
        (setting_name(name), compact(settings[name]))
        for name in _TRAINING_SETTINGS
        if name in settings
    ]
    return {"model": model, "init": _initialisation(facts.get("init")), "schedule": schedule}


def data_sheet(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """Counts, prevalence and attributes of every split; notes; skipped images; synthetic samples.

    Raises:
        Unavailable: there is no data sheet.
    """
    del figures
    sheet = run.need("data_sheet.json")
    ids = known_patient_ids(run.folder)
    splits = {str(name): part for name, part in mapping(sheet, "splits").items()}
    return {
        "name": sheet.get("name", "not reported"),
        "notes": [redact_text(str(note), ids) for note in _list(sheet.get("notes"))],
        "splits": list(splits),
        "sizes": [
            (words, [_count(part, field) for part in splits.values()])
            for field, words in (("num_patients", "Patients"), ("num_images", "Images"))
        ],
        "prevalence": _prevalence(splits),
        "attributes": _attributes(splits),
        "ages": _ages(splits),
        "preprocessing": _pairs(sheet.get("preprocessing")),
        "harmonisation": _pairs(sheet.get("label_harmonisation")),
        "skipped": _skipped(run, ids),
        "num_skipped": sheet.get("num_skipped"),
        "contact_sheet": contact_sheet(run),
        "is_synthetic": run.is_synthetic,
    }


def settings(run: RunFiles, figures: list[Figure]) -> dict[str, Any]:
    """The configuration without secrets, hashes and versions."""
    del figures
    text = yaml.safe_dump(redact_settings(run.config), sort_keys=False, allow_unicode=True)
    hashes = [
        (words, compact(run.run.get(field, "not reported")))
        for field, words in (
            ("code_version", "Code version"),
            ("config_hash", "Configuration hash"),
            ("split_hash", "Split hash"),
            ("started", "Started"),
            ("finished", "Finished"),
        )
    ]
    return {
        "config": text if run.config else "",
        "problem": run.problems.get("config.yaml", ""),
        "hashes": hashes,
        "versions": _pairs(run.run.get("versions")),
    }


def contact_sheet(run: RunFiles) -> str:
    """The contact sheet as a data URI; empty unless the data sheet says that it is synthetic."""
    path = run.folder / "contact_sheet.png"
    if not run.is_synthetic or not path.is_file():
        return ""
    content = path.read_bytes()
    if not content.startswith(_PNG_SIGNATURE):
        return ""
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def warnings(run: RunFiles) -> list[str]:
    """The run's own warnings, without patient ids."""
    ids = known_patient_ids(run.folder)
    return [redact_text(str(item), ids) for item in _list(run.run.get("warnings"))]


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


def _initialisation(init: object) -> list[tuple[str, str]]:
    if not isinstance(init, Mapping) or not init:
        return [("Start weights", "not reported")]
    rows = []
    for name, value in init.items():
        if value in ("", None, [], (), {}) or name == "is_declared":
            continue
        if name == "data_sets" and isinstance(value, list):
            seen = [str(mapping({"d": entry}, "d").get("name", entry)) for entry in value]
            rows.append(("Data seen before", ", ".join(seen)))
        else:
            rows.append((_INIT_NAMES.get(name, setting_name(name)), compact(value)))
    if init.get("is_declared") is False:
        rows.append(("Data seen before", "not declared: epsilon says nothing about these weights"))
    return rows


def _seconds(seconds: object) -> str:
    if isinstance(seconds, Mapping):
        return ", ".join(f"{name} {compact(value)}" for name, value in seconds.items())
    return compact(seconds) if seconds is not None else "not reported"


def _count(part: object, *names: str) -> str:
    node: Any = part
    for name in names:
        node = node.get(name) if isinstance(node, Mapping) else None
    return f"{node:,}" if is_number(node) else "not known"


def _prevalence(splits: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    labels = dict.fromkeys(name for part in splits.values() for name in mapping(part, "prevalence"))
    return [
        (
            label_name(label),
            [_share(mapping(part, "prevalence", label)) for part in splits.values()],
        )
        for label in labels
    ]


def _share(counts: Mapping[str, Any]) -> str:
    positive, negative = counts.get("positive"), counts.get("negative")
    if not is_number(positive) or not is_number(negative):
        return "not known"
    known = positive + negative
    percent = f" ({100 * positive / known:.1f} %)" if known else ""
    missing = counts.get("missing")
    unknown = f", {missing:,} unknown" if is_number(missing) and missing else ""
    return f"{positive:,} of {known:,}{percent}{unknown}"


def _attributes(splits: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    blocks = []
    for attribute in ("sex", "view", "site"):
        names = dict.fromkeys(
            str(name) for part in splits.values() for name in mapping(part, attribute)
        )
        rows = [
            (
                group_name(attribute, name),
                [_count(part, attribute, name) for part in splits.values()],
            )
            for name in names
        ]
        blocks.append((label_name(attribute), rows))
    groups = dict.fromkeys(
        str(name) for part in splits.values() for name in mapping(part, "age", "groups")
    )
    rows = [
        (f"{name} years", [_count(part, "age", "groups", name) for part in splits.values()])
        for name in groups
    ]
    return [(title, rows) for title, rows in [*blocks, ("Age", rows)] if rows]


def _ages(splits: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    return [
        (
            name.replace("_", " ").capitalize(),
            [_count(part, "age", name) for part in splits.values()],
        )
        for name in _AGE_STATISTICS
        if any(name in mapping(part, "age") for part in splits.values())
    ]


def _pairs(found: object) -> list[tuple[str, str]]:
    if not isinstance(found, Mapping):
        return []
    return [(str(name), compact(value)) for name, value in found.items()]


def _skipped(run: RunFiles, ids: set[str]) -> list[str]:
    """File names of images that could not be read; none where it is unknown which words are ids."""
    if not ids:
        return []
    names = []
    for item in _list(run.run.get("skipped_images")):
        if isinstance(item, Mapping):
            shown = redact_file_name(str(item.get("image", "")), ids)
            names.append(f"{shown}: {redact_text(str(item.get('reason', '')), ids)}")
        else:
            names.append(redact_file_name(str(item), ids))
    return names
