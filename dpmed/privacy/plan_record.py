"""The privacy plan as a frozen record: numbers that training, report and ledger all take from it.

Made by `plan`, written and read by `plan_file`, put into words by `statements`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dpmed.privacy import plan_file, statements
from dpmed.privacy.accounting import EpsilonCurve, Mechanism

Unit = Literal["patient", "image"]

# What the updates depend on. Derived figures are left out: they may differ in the last digit
# between two starts, and a resumed run must find its plan unchanged.
_TRAINED_BY = (
    "enabled",
    "private",
    "unit",
    "target_epsilon",
    "delta",
    "num_units",
    "expected_batch_size",
    "num_steps",
    "noise_multiplier",
    "max_grad_norm",
    "sensitivity",
    "clipping_rule",
    "views_per_unit",
)


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
        """16 hexadecimal digits; equal plans draw, clip, add noise and are charged alike."""
        return plan_file.hash_of({name: getattr(self, name) for name in _TRAINED_BY})

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
        return cls(**plan_file.read(Path(path)))
