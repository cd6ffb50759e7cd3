"""The privacy plan: frozen before training, made from public settings alone.

Everything later (noise, sampler, accountant, banner, report) takes its numbers from here. The plan
never sees a table: the number of units and the expected batch size are what the user declares
public. `make_plan` calibrates the noise, checks the result with a second accountant, and refuses
what would make the guarantee void. The record stands in `plan_record`, its words in `statements`,
its file in `plan_file`.
"""

from __future__ import annotations

import math
from typing import cast

from dpmed.privacy.accounting import (
    SMALLEST_DELTA,
    Mechanism,
    composed_pld,
    epsilon_curve,
    epsilon_pld,
    numerical_error,
    patient_epsilon,
)
from dpmed.privacy.calibration import calibrate_noise_multiplier
from dpmed.privacy.cross_check import require_agreement
from dpmed.privacy.gaussian_dp import gaussian_dp, privacy_profile
from dpmed.privacy.plan_record import PrivacyPlan, Unit
from dpmed.privacy.public_settings import (
    require_delta,
    require_noise_scale,
    require_num_units,
    require_positive,
    require_public_settings,
)

__all__ = ["PrivacyPlan", "disabled_plan", "make_plan"]

# For unit=image the statement gives the epsilon of a patient with so many images.
PATIENT_IMAGE_COUNTS = (2, 3, 5, 10)
_NUM_PROFILE_POINTS = 100
_PATIENT_COARSEN = 100  # four counts in 3 s, at most .001 above a grid three times as fine


def make_plan(
    *,
    unit: str,
    target_epsilon: float,
    delta: float,
    num_units: int | None,
    expected_batch_size: int,
    num_steps: int,
    max_grad_norm: float,
    sensitivity: float,
    clipping_rule: str,
    views_per_unit: int,
    precision_slack: float,
    num_units_origin: str = "declared by privacy.num_units",
    noise_scale: float = 1.0,
    injected_key: bool = False,
) -> PrivacyPlan:
    """Calibrate the noise for a budget, in integer logical steps.

    Args:
        unit: "patient" or "image".
        target_epsilon: the budget; never exceeded.
        delta: below 1 / sqrt(num_units); from 1 / num_units on the statement warns.
        num_units: N, declared public, never counted from the table; None asks for it.
        expected_batch_size: declared public.
        num_steps: logical steps.
        max_grad_norm: clip norm C.
        sensitivity: the clipper's.
        clipping_rule: the clipper's.
        views_per_unit: most images of a unit in a step.
        precision_slack: the clipper's, already inside `sensitivity`.
        num_units_origin: where N was declared, for the statement.
        noise_scale: factor on the calibrated noise, at least 1.
        injected_key: whether the key is not a secret; the plan is then marked not private.

    Guarantee:
        With a secret key, Poisson sampling at `sample_rate` and per-unit sums of norm at most
        `sensitivity`, the weights after `num_steps` steps are (epsilon, delta)-DP for adding or
        removing a unit, with epsilon <= target_epsilon.

    Raises:
        UserError: a setting is missing, out of range, or the budget is not reachable.
        AccountantsDisagree: PLD and PRV contradict each other; nothing is trained.
    """
    num_units = require_num_units(num_units, unit)
    require_public_settings(unit, num_units, expected_batch_size, num_steps, views_per_unit)
    require_delta(delta, num_units)
    require_positive("privacy.epsilon", target_epsilon)
    require_positive("privacy.max_grad_norm", max_grad_norm)
    require_positive("sensitivity", sensitivity)
    assert 0 <= precision_slack < 1, f"precision_slack={precision_slack}"
    require_noise_scale(noise_scale)
    sample_rate = expected_batch_size / num_units
    noise_multiplier = noise_scale * calibrate_noise_multiplier(
        target_epsilon=target_epsilon, delta=delta, sample_rate=sample_rate, num_steps=num_steps
    )
    steps = Mechanism(
        noise_multiplier=noise_multiplier, sample_rate=sample_rate, num_steps=num_steps
    )
    epsilon = epsilon_pld(
        noise_multiplier=noise_multiplier,
        sample_rate=sample_rate,
        num_steps=num_steps,
        delta=delta,
    )
    curve = epsilon_curve(steps, delta=delta)
    profile = privacy_profile(
        composed_pld((steps,), coarsen=10),
        smallest_delta=max(delta / 100, SMALLEST_DELTA),
        numerical_error=numerical_error(num_steps),
    )
    gaussian = gaussian_dp(profile)
    stride = len(profile.epsilon_E) // _NUM_PROFILE_POINTS
    return PrivacyPlan(
        enabled=True,
        private=not injected_key,
        unit=cast(Unit, unit),
        target_epsilon=float(target_epsilon),
        epsilon=epsilon,
        delta=float(delta),
        num_units=num_units,
        num_units_origin=num_units_origin,
        expected_batch_size=expected_batch_size,
        sample_rate=sample_rate,
        num_steps=num_steps,
        noise_multiplier=noise_multiplier,
        noise_scale=float(noise_scale),
        max_grad_norm=float(max_grad_norm),
        sensitivity=float(sensitivity),
        precision_slack=float(precision_slack),
        clipping_rule=clipping_rule,
        views_per_unit=views_per_unit,
        epsilon_second_opinion=require_agreement(steps, delta=delta, epsilon=epsilon),
        mu=gaussian.mu,
        mu_regret=gaussian.regret,
        membership_accuracy=profile.membership_accuracy,
        epsilon_over_steps=tuple(zip(curve.num_steps, curve.epsilon, strict=True)),
        delta_over_epsilon=tuple(
            zip(
                profile.epsilon_E[::stride].tolist(),
                profile.delta_E[::stride].tolist(),
                strict=True,
            )
        ),
        patient_epsilon=_patient_epsilons(steps, delta) if unit == "image" else (),
    )


def disabled_plan(
    *, unit: str, num_units: int | None, expected_batch_size: int, num_steps: int,
    views_per_unit: int,
) -> PrivacyPlan:  # fmt: skip
    """The plan of a run without differential privacy: same schedule, no promise.

    Raises:
        UserError: as `make_plan`, for the settings that remain.
    """
    num_units = require_num_units(num_units, unit)
    require_public_settings(unit, num_units, expected_batch_size, num_steps, views_per_unit)
    return PrivacyPlan(
        enabled=False,
        private=False,
        unit=cast(Unit, unit),
        target_epsilon=math.inf,
        epsilon=math.inf,
        delta=1.0,
        num_units=num_units,
        num_units_origin="a setting of the run",
        expected_batch_size=expected_batch_size,
        sample_rate=expected_batch_size / num_units,
        num_steps=num_steps,
        noise_multiplier=0.0,
        noise_scale=1.0,
        max_grad_norm=math.inf,
        sensitivity=math.inf,
        precision_slack=0.0,
        clipping_rule="none",
        views_per_unit=views_per_unit,
        epsilon_second_opinion=math.inf,
        mu=math.inf,
        mu_regret=0.0,
        membership_accuracy=1.0,
        epsilon_over_steps=(),
        delta_over_epsilon=(),
        patient_epsilon=(),
        accountant="none",
        randomness="none",
    )


def _patient_epsilons(steps: Mechanism, delta: float) -> tuple[tuple[int, float], ...]:
    return tuple(
        (
            num_images,
            patient_epsilon(
                num_images=num_images,
                noise_multiplier=steps.noise_multiplier,
                sample_rate=steps.sample_rate,
                num_steps=steps.num_steps,
                delta=delta,
                coarsen=_PATIENT_COARSEN,
            ),
        )
        for num_images in PATIENT_IMAGE_COUNTS
    )
