"""The privacy plan: frozen before training, made from public settings alone.

Everything later (noise, sampler, accountant, banner, report) takes its numbers from here. The plan
never sees a table: the number of units and the expected batch size are what the user declares
public. `make_plan` calibrates the noise, checks the result with a second accountant, and refuses
what would make the guarantee void. The words are in `statement`, the file in `plan_file`.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from dpmed.errors import UserError
from dpmed.privacy import plan_file, statements
from dpmed.privacy.accounting import (
    SMALLEST_DELTA,
    EpsilonCurve,
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
from dpmed.privacy.public_settings import (
    require_delta,
    require_num_units,
    require_positive,
    require_public_settings,
)

Unit = Literal["patient", "image"]
# For unit=image the statement gives the epsilon of a patient with so many images.
PATIENT_IMAGE_COUNTS = (2, 5)
_NUM_PROFILE_POINTS = 100


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """What is promised, to whom, and the numbers that keep the promise.

    Args:
        enabled: whether training clips and adds noise at all.
        private: whether the promise holds: enabled, and under a secret key.
        unit: whose whole contribution is hidden, a patient's or one image's.
        adjacency: neighbouring data sets differ by adding or removing one unit.
        target_epsilon: what was asked for.
        epsilon: what the planned steps cost by PLD; never above the target; infinite without DP.
        delta: probability with which the promise may fail.
        num_units: declared public number of training units N.
        num_units_origin: where N was declared.
        expected_batch_size: units that a logical step draws on average; declared public.
        sample_rate: expected_batch_size / num_units, exactly as sampled and accounted.
        num_steps: logical steps.
        noise_multiplier: noise standard deviation / `sensitivity`.
        noise_scale: factor on the calibrated noise; above 1 only in sanity checks.
        max_grad_norm: the clip norm C.
        sensitivity: the most that one unit moves the clipped sum, rounding included.
        precision_slack: the part of C that is held back for rounding, inside `sensitivity`.
        clipping_rule: how a unit's gradient is brought below C.
        views_per_unit: the most images of a unit in a step.
        accountant: how epsilon was computed.
        epsilon_second_opinion: Opacus' PRV epsilon, an upper bound with its own error inside.
        mu: Gaussian-DP parameter, holding down to delta / 100.
        mu_regret: how far mu overstates the leak; above .01 look at `delta_over_epsilon`.
        membership_accuracy: bound on right guesses whether a unit took part, at even odds.
        epsilon_over_steps: upper bounds of epsilon after fewer steps.
        delta_over_epsilon: points (epsilon, delta) of the whole privacy profile.
        patient_epsilon: epsilon of a patient with so many images, where the unit is the image.
    """

    enabled: bool
    private: bool
    unit: Unit
    target_epsilon: float
    epsilon: float
    delta: float
    num_units: int
    num_units_origin: str
    expected_batch_size: int
    sample_rate: float
    num_steps: int
    noise_multiplier: float
    noise_scale: float
    max_grad_norm: float
    sensitivity: float
    precision_slack: float
    clipping_rule: str
    views_per_unit: int
    epsilon_second_opinion: float
    mu: float
    mu_regret: float
    membership_accuracy: float
    epsilon_over_steps: tuple[tuple[int, float], ...]
    delta_over_epsilon: tuple[tuple[float, float], ...]
    patient_epsilon: tuple[tuple[int, float], ...]
    adjacency: str = "add_or_remove_one_unit"
    accountant: str = "pld"
    sampling: str = "poisson"
    randomness: str = "AES-256-CTR under a 256-bit key from the operating system"
    tuning_included: bool = False

    def __post_init__(self) -> None:
        assert self.sample_rate == self.expected_batch_size / self.num_units
        assert not self.private or self.enabled
        assert not self.enabled or self.epsilon <= self.target_epsilon

    @property
    def noise_standard_deviation(self) -> float:
        """Of the noise on the sum of clipped gradients, before it is divided by the batch size."""
        return self.noise_multiplier * self.sensitivity if self.enabled else 0.0

    @property
    def step_mechanism(self) -> Mechanism:
        """One logical step, as the ledger reserves it; only where `enabled`."""
        return Mechanism(
            noise_multiplier=self.noise_multiplier, sample_rate=self.sample_rate, num_steps=1
        )

    @property
    def plan_hash(self) -> str:
        """16 hexadecimal digits; equal plans train and account alike."""
        canonical = json.dumps(plan_file.numbers_of(self), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def epsilon_after(self, num_steps: int) -> float:
        """An upper bound of epsilon after some logical steps; a look-up, from steps alone."""
        if not self.enabled:
            return math.inf
        steps, epsilons = zip(*self.epsilon_over_steps, strict=True)
        return EpsilonCurve(num_steps=steps, epsilon=epsilons).at(num_steps)

    def statement(self) -> str:
        """The guarantee, what it means, what it covers and what not, in plain words."""
        return statements.statement(self)

    def to_json(self, path: Path | str) -> None:
        """Write `plan.json`, checked against the schema in the package."""
        plan_file.write(self, Path(path))

    @classmethod
    def from_json(cls, path: Path | str) -> PrivacyPlan:
        """Read `plan.json` back.

        Raises:
            UserError: the file is missing, damaged, or was changed by hand.
        """
        numbers, plan_hash = plan_file.read(Path(path))
        plan = cls(**numbers)
        if plan.plan_hash != plan_hash:
            raise UserError(
                f"{path} was changed after it was written (plan_hash={plan_hash} does not fit its "
                "numbers). A plan is frozen: start a new run for another one."
            )
        return plan


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
    if not 1 <= noise_scale < math.inf:
        raise UserError(
            f"privacy.noise_scale={noise_scale} must be 1 or more: less voids the plan."
        )
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
                coarsen=30,
            ),
        )
        for num_images in PATIENT_IMAGE_COUNTS
    )
