"""`plan.json`: the plan as a file that other people's tools may read.

Its stable fields are named in `schemas/plan.schema.json`, which ships with the package. Infinity,
which JSON lacks, is written as null. Words are written beside the numbers and never read back.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema

from dpmed.errors import UserError
from dpmed.privacy import statements

if TYPE_CHECKING:
    from dpmed.privacy.plan_record import PrivacyPlan

_TABLES = ("epsilon_over_steps", "delta_over_epsilon", "patient_epsilon")
_MAY_BE_INFINITE = (
    "epsilon",
    "target_epsilon",
    "epsilon_second_opinion",
    "max_grad_norm",
    "sensitivity",
    "mu",
)
_DERIVED = (
    "plan_hash",
    "content_hash",
    "noise_standard_deviation",
    "statement",
    "covered",
    "not_covered",
    "notes",
)


def write(plan: PrivacyPlan, path: Path) -> None:
    """Write the plan's numbers and words, after checking them against the schema."""
    numbers = numbers_of(plan)
    content = {
        **numbers,
        "content_hash": hash_of(numbers),
        "plan_hash": plan.plan_hash,
        "noise_standard_deviation": plan.noise_standard_deviation,
        "covered": statements.covered(plan) if plan.private else [],
        "not_covered": statements.not_covered(plan),
        "notes": statements.notes(plan),
        "statement": plan.statement(),
    }
    jsonschema.validate(content, schema())
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """The plan's numbers, as `PrivacyPlan` takes them.

    Raises:
        UserError: missing, no JSON, not of the schema (names the field), or changed by hand.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.validate(content, schema())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; a run folder holds one from its start on.") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON (line {error.lineno}): {error.msg}.") from None
    except jsonschema.ValidationError as error:
        raise UserError(f"{path}: {error.json_path} is wrong: {error.message}.") from None
    numbers = {name: value for name, value in content.items() if name not in _DERIVED}
    if hash_of(numbers) != content["content_hash"]:
        raise UserError(
            f"{path} was changed after it was written: its numbers do not fit its content_hash. A "
            "plan is frozen; start a new run for another one."
        )
    for name in _MAY_BE_INFINITE:
        numbers[name] = math.inf if numbers[name] is None else numbers[name]
    for name in _TABLES:
        numbers[name] = tuple(tuple(row) for row in numbers[name])
    return numbers


def hash_of(numbers: Mapping[str, Any]) -> str:
    """16 hexadecimal digits over names and values."""
    canonical = json.dumps(numbers, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def numbers_of(plan: PrivacyPlan) -> dict[str, Any]:
    """The plan's own fields in JSON types, infinity as None."""
    return {name: _as_json(value) for name, value in dataclasses.asdict(plan).items()}


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON schema of `plan.json`."""
    file = resources.files("dpmed.privacy") / "schemas" / "plan.schema.json"
    return json.loads(file.read_text(encoding="utf-8"))


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return None
    return value
