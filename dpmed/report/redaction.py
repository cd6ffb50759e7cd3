"""Keeps patient ids and secrets out of text that the report repeats: warnings, names, settings.

A file name of a real release often is the patient id (ChestX-ray14's `00000013_005.png` is patient
13). Ids are read here for this purpose alone and never leave this module's callers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

PLACEHOLDER = "[patient]"
HIDDEN_SETTING = "(not shown)"
_SECRET_SETTING = re.compile(r"(^|_)(key|token|password|secret|salt)$")
_WORD = re.compile(r"[A-Za-z0-9]+(?:[-_.][A-Za-z0-9]+)*")
_SEPARATOR = re.compile(r"([-_.])")
_AFTER_PATIENT = re.compile(r"\bpatients?(?:[\s_]+ids?)?\s*[:=]?\s*['\"]?$", re.IGNORECASE)
# In running text a short number is more often a count ("17 ages") than a patient.
_MIN_NUMERIC_ID_LENGTH = 5


def known_patient_ids(run_dir: Path) -> set[str]:
    """Every patient id that the run folder's tables name, in the form that `canonical` gives."""
    ids: set[str] = set()
    for path in (run_dir / "splits.csv", *sorted((run_dir / "predictions").glob("*.parquet"))):
        try:
            if path.suffix == ".csv":
                column = pd.read_csv(path, usecols=["patient_id"], dtype=str)["patient_id"]
            else:
                column = pd.read_parquet(path, columns=["patient_id"])["patient_id"]
        except (OSError, ValueError, KeyError):
            continue
        ids.update(canonical(str(value)) for value in column.dropna().unique())
    return ids


def canonical(word: str) -> str:
    """An id without the padding that releases add in file names: `p00013` and `13` are one."""
    lowered = word.lower()
    return re.sub(r"^[a-z]?0+(?=\d)|^p(?=\d)", "", lowered)


def redact_file_name(name: str, ids: set[str]) -> str:
    """The last part of a path, with each known patient id in it replaced."""
    return _WORD.sub(lambda match: _hide(match[0], ids, lambda _: True), Path(name).name)


def redact_text(text: str, ids: set[str]) -> str:
    """A sentence with known patient ids replaced; a short number only after the word patient."""

    def hide(match: re.Match[str]) -> str:
        named = _AFTER_PATIENT.search(text[: match.start()]) is not None
        return _hide(
            match[0],
            ids,
            lambda part: named or not part.isdigit() or len(part) >= _MIN_NUMERIC_ID_LENGTH,
        )

    return _WORD.sub(hide, text)


def redact_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with keys, tokens, passwords and salts hidden, whatever their depth."""
    shown: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            shown[str(name)] = redact_settings(value)
        elif value is not None and _SECRET_SETTING.search(str(name).lower()):
            shown[str(name)] = HIDDEN_SETTING
        else:
            shown[str(name)] = value
    return shown


def _hide(word: str, ids: set[str], may_be_id: Callable[[str], bool]) -> str:
    """Replaces the longest runs of a word's parts that are ids: `site-a_13` has five parts."""
    parts = _SEPARATOR.split(word)
    shown, start = [], 0
    while start < len(parts):
        for end in range(len(parts), start, -1):
            candidate = "".join(parts[start:end])
            if canonical(candidate) in ids and may_be_id(candidate):
                shown.append(PLACEHOLDER)
                break
        else:
            end = start + 1
            shown.append(parts[start])
        start = end
    return "".join(shown)
