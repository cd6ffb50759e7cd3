"""Checks what was typed on the command line before Hydra composes it.

Hydra's own message for a misspelt key or choice is long and proposes to add the key; this one names
the nearest match. It reads the YAML files below `conf/` and nothing else, so it answers at once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from dpmed.errors import UserError, did_you_mean

_OVERRIDE = re.compile(
    r"^(?P<sign>\+\+|\+|~)?(?P<key>[^=@]+)(?P<package>@[^=]*)?(=(?P<value>.*))?$"
)
_FREE_FORM = ("hydra", "data.columns", "data.label_map", "data.releases")
_MAX_FOLDER_NAME = 150
_REFUSED = {
    "accumulate_grad_batches": (
        "a logical step already gathers as many physical batches as it needs, and accumulating "
        "them again would no longer be what the accountant counts. Set "
        "privacy.expected_batch_size for the logical batch and performance.physical_batch_size "
        "for what fits into memory."
    ),
    "sampler": (
        "the guarantee holds for Poisson sampling by dpmed's own secret generator only; another "
        "sampler would make the accounted epsilon false."
    ),
    "batch_size": (
        "there are two: privacy.expected_batch_size (the logical batch, part of the guarantee) and "
        "performance.physical_batch_size (units in memory at once)."
    ),
}


def config_folder() -> Path:
    """The folder of the shipped configurations: beside the package, or inside an installed one."""
    package = Path(__file__).parent
    beside = package.parent / "conf"
    return beside if (beside / "config.yaml").is_file() else package / "_conf"


def check_overrides(overrides: Sequence[str], folder: Path | None = None) -> None:
    """Refuses misspelt groups, choices and keys, and the settings that would void the guarantee.

    Args:
        overrides: `key=value` words of a command line; words that start with `-` are ignored.
        folder: the configuration folder.

    Raises:
        UserError: names the word, the nearest match and what is allowed.
    """
    folder = folder or config_folder()
    groups = {path.name: _choices(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    keys = _known_keys(folder)
    chosen = _chosen(overrides, groups)
    for word in overrides:
        match = None if word.startswith("-") else _OVERRIDE.match(word)
        if match is None or match["key"].split(".")[0] == "hydra" or "/" in match["key"]:
            continue
        key, value = match["key"].strip(), match["value"]
        if value is None and "." not in key:
            continue  # the argument of a flag, as in --cfg job
        if value is None and match["sign"] != "~":
            raise UserError(
                f"{word!r} is no setting: write key=value, for example privacy.epsilon=8."
            )
        if key in groups:
            _check_choice(key, value or "", groups[key])
        elif key not in keys and not key.startswith(_FREE_FORM):
            raise UserError(_explain_unknown(key, [*keys, *groups]))
        elif "data" in chosen and key.startswith("data.") and not key.startswith(_FREE_FORM):
            _check_key_of_choice(key, "data", chosen["data"], folder)
        elif key.endswith("pos_weight") and value is not None:
            _check_pos_weight(value)


def folder_name(overrides: str) -> str:
    """A job's overrides as the name of its folder, cut and told apart by a hash where too long."""
    if len(overrides) <= _MAX_FOLDER_NAME:
        return overrides
    digest = hashlib.sha256(overrides.encode()).hexdigest()[:12]
    return f"{overrides[: _MAX_FOLDER_NAME - 13]}-{digest}"


def _check_choice(group: str, value: str, choices: Sequence[str]) -> None:
    for name in re.sub(r"^choice\((.*)\)$", r"\1", value).split(","):
        name = name.strip().strip("'\"").removesuffix(".yaml")
        if name and name != "null" and name not in choices:
            raise UserError(
                f"{group}={name}: no such choice.{did_you_mean(name, choices)} "
                f"Available: {', '.join(choices)}."
            )


def _chosen(overrides: Sequence[str], groups: Iterable[str]) -> dict[str, str]:
    """The one option that was typed for a group; a sweep over options is left out."""
    typed = dict(word.split("=", 1) for word in overrides if "=" in word)
    return {group: typed[group] for group in groups if "," not in typed.get(group, ",")}


def _check_key_of_choice(key: str, group: str, choice: str, folder: Path) -> None:
    """`data.num_patients` is a setting, but not one of data=manifest."""
    known = list(dict.fromkeys(_flatten(_with_defaults(folder / group, choice), group)))
    if key not in known:
        raise UserError(
            f"{key} is not a setting of {group}={choice}.{did_you_mean(key, known)} "
            f"It has: {', '.join(name.removeprefix(group + '.') for name in known)}."
        )


def _with_defaults(group: Path, choice: str) -> dict[str, Any]:
    """The settings of a choice and of the choices in the same group that it builds on."""
    own = yaml.safe_load((group / f"{choice}.yaml").read_text(encoding="utf-8"))
    bases = [_with_defaults(group, name) for name in own.get("defaults", []) if name != "_self_"]
    return {key: value for settings in (*bases, own) for key, value in settings.items()}


def _check_pos_weight(value: str) -> None:
    if value != "null" and not re.match(r"^[\[\d.,\seE+\-\]]+$", value):
        raise UserError(
            f"training.pos_weight={value}: class weights computed from private labels would enter "
            "training outside the budget. Give literal numbers from a public source, for example "
            "training.pos_weight=[2,8,4,9,1], or leave them out."
        )


def _explain_unknown(key: str, known: Sequence[str]) -> str:
    reason = _REFUSED.get(key.split(".")[-1])
    if reason is not None:
        return f"{key} cannot be set: {reason}"
    hint = did_you_mean(key, known)
    if not hint:
        same_leaf = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
        hint = f" Did you mean {same_leaf[0]!r}?" if same_leaf else ""
    group = key.split(".")[0]
    siblings = [name for name in known if name.startswith(f"{group}.") and name.count(".") == 1]
    listing = f" Settings of {group}: {', '.join(siblings)}." if siblings and not hint else ""
    return f"{key} is not a setting.{hint}{listing}"


def _choices(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _known_keys(folder: Path) -> list[str]:
    keys: dict[str, None] = {}
    for path in sorted(folder.rglob("*.yaml")):
        relative = path.relative_to(folder)
        if relative.parts[0] == "hydra":
            continue
        text = path.read_text(encoding="utf-8")
        package = re.search(r"^# @package (\S+)", text)
        prefix = package[1] if package else ".".join(relative.parts[:-1])
        prefix = prefix.removeprefix("_global_")
        keys.update(dict.fromkeys(_flatten(yaml.safe_load(text) or {}, prefix)))
    return list(keys)


def _flatten(mapping: dict[str, Any], prefix: str) -> Iterable[str]:
    for name, value in mapping.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        if name in ("defaults", "hydra"):
            continue
        yield key
        if isinstance(value, dict):
            yield from _flatten(value, key)
