"""What the user declares public for the plan, and when it would make the guarantee void.

Called by the plan alone, before anything is computed. Every message names the setting as it is
typed on the command line, what is allowed, and what to do.
"""

from __future__ import annotations

import math

from dpmed.errors import UserError, did_you_mean
from dpmed.privacy.accounting import SMALLEST_DELTA

UNITS = ("patient", "image")


def require_num_units(num_units: int | None, unit: str) -> int:
    """N, or the line to add where it is missing."""
    if num_units is None:
        raise UserError(
            f"privacy.num_units is missing: the number of training {unit}s enters the guarantee, "
            "so you declare it as public; it is never counted from the private table. Add this "
            "line, with a round figure near the true one: privacy.num_units=N"
        )
    return num_units


def require_public_settings(
    unit: str, num_units: int, expected_batch_size: int, num_steps: int, views_per_unit: int
) -> None:
    """A known unit, counts of 1 or more, and no batch above the number of units."""
    if unit not in UNITS:
        raise UserError(
            f"privacy.unit={unit!r} is not known; allowed: {', '.join(UNITS)}."
            f"{did_you_mean(unit, UNITS)}"
        )
    for name, value in (
        ("privacy.num_units", num_units),
        ("privacy.expected_batch_size", expected_batch_size),
        ("training.num_steps", num_steps),
        ("privacy.views_per_unit", views_per_unit),
    ):
        if not (isinstance(value, int) and value >= 1):
            raise UserError(f"{name}={value} must be an integer of 1 or more.")
    if expected_batch_size > num_units:
        raise UserError(
            f"privacy.expected_batch_size={expected_batch_size} is more than "
            f"privacy.num_units={num_units}: a step cannot draw more {unit}s than there are. "
            "Lower the batch size, or correct num_units."
        )


def require_delta(delta: float, num_units: int) -> None:
    """Resolved by the accountant, and below 1 / sqrt(N)."""
    if not SMALLEST_DELTA <= delta < 1:
        raise UserError(
            f"privacy.delta={delta} must lie between {SMALLEST_DELTA:g}, what the accountant "
            "resolves, and 1; usual is a value well below 1 / num_units."
        )
    limit = 1 / math.sqrt(num_units)
    if delta >= limit:
        raise UserError(
            f"privacy.delta={delta:g} is at least 1/sqrt(num_units) = {limit:.3g}: such a promise "
            f"may simply publish some patients. Use at most {0.1 / num_units:.1g}, a tenth of "
            "1/num_units."
        )


def require_positive(name: str, value: float) -> None:
    """Positive and finite."""
    if not 0 < value < math.inf:
        raise UserError(f"{name}={value} must be a positive, finite number.")


def require_noise_scale(noise_scale: float) -> None:
    """At least 1: less noise than calibrated would break the promise."""
    if not 1 <= noise_scale < math.inf:
        raise UserError(
            f"privacy.noise_scale={noise_scale} must be 1 or more; with less noise than calibrated "
            "the promise would be false. Raise privacy.epsilon instead."
        )
