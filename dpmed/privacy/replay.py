"""After an interruption: which steps repeat for free, and which would be charged again.

A step that is repeated bit for bit (same key, plan, data, code, threads, physical batch) gives the
same output and reveals nothing new. If anything differs, the old noise may not be used again: the
run stops, or goes on under a fresh key and pays for the repeated steps once more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FINGERPRINT_FIELDS = (
    "key_id",
    "plan_hash",
    "data_hash",
    "code_version",
    "num_threads",
    "physical_batch_size",
)


@dataclass(frozen=True, kw_only=True)
class ReplayDecision:
    """What resuming would repeat, and at what price.

    Args:
        replayed_steps: reserved before the interruption and to be done again, ascending.
        differences: for each field that changed, "name (was X, now Y)".
    """

    replayed_steps: tuple[int, ...]
    differences: tuple[str, ...]

    @property
    def is_free(self) -> bool:
        """Whether the recorded key may go on: nothing differs."""
        return not self.differences

    @property
    def charged_steps(self) -> tuple[int, ...]:
        """The steps that a fresh key pays for a second time."""
        return () if self.is_free else self.replayed_steps

    def message(self) -> str:
        """What happens, for the user who resumes."""
        num_steps = len(self.replayed_steps)
        which = _span(self.replayed_steps)
        if self.is_free:
            return "Resuming under unchanged conditions: " + (
                f"{which} repeated bit for bit, free of charge." if num_steps else "no charge."
            )
        return (
            f"Resuming under changed conditions: {'; '.join(self.differences)}. The noise of the "
            "first attempt cannot be used again, so a fresh key is needed, and "
            + (f"{which} charged a second time." if num_steps else "no step is charged twice.")
        )


def replay_check(
    *,
    recorded: Mapping[str, str],
    present: Mapping[str, str],
    completed_steps: int,
    reserved_steps: Sequence[int],
) -> ReplayDecision:
    """Compare the conditions of a checkpoint with those of now.

    Args:
        recorded: fingerprint in the checkpoint: `FINGERPRINT_FIELDS`, and more where wanted.
        present: fingerprint of now; with a fresh `key_id` where the old key is lost.
        completed_steps: steps in the checkpoint; the first step to do next.
        reserved_steps: the run's steps in the ledger.

    Guarantee:
        A field that either side lacks counts as changed.
    """
    names = dict.fromkeys([*FINGERPRINT_FIELDS, *recorded, *present])
    differences = tuple(
        f"{name} (was {recorded.get(name, 'unknown')}, now {present.get(name, 'unknown')})"
        for name in names
        if name not in recorded or name not in present or recorded[name] != present[name]
    )
    replayed = tuple(sorted(step for step in set(reserved_steps) if step >= completed_steps))
    return ReplayDecision(replayed_steps=replayed, differences=differences)


def fingerprint_hash(fingerprint: Mapping[str, str]) -> str:
    """16 hexadecimal digits for the ledger; equal for equal conditions.

    Raises:
        AssertionError: a field of `FINGERPRINT_FIELDS` is missing.
    """
    missing = [name for name in FINGERPRINT_FIELDS if name not in fingerprint]
    assert not missing, f"the fingerprint lacks {missing}"
    canonical = json.dumps(dict(fingerprint), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _span(steps: Sequence[int]) -> str:
    if not steps:
        return "no step is"
    if len(steps) == 1:
        return f"step {steps[0]} is"
    return f"{len(steps)} steps, {steps[0]} to {steps[-1]}, are"
