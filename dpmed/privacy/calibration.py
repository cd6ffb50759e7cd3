"""The smallest noise multiplier that keeps epsilon within a budget, in integer logical steps.

Stands between the user's (epsilon, delta) and the plan. It uses exactly the sample rate and the
number of steps that the sampler and the accountant use: Opacus' own calibration derives the rate
from a loader's length and overshoots (2.004 for a target of 2.0).
"""

from __future__ import annotations

import functools
import math

from scipy import optimize

from dpmed.errors import UserError
from dpmed.privacy.accounting import Mechanism, composed_pld, epsilon_pld

SMALLEST_NOISE_MULTIPLIER = 0.3
LARGEST_NOISE_MULTIPLIER = 1000.0
_SIGNIFICANT_DIGITS = 5


@functools.lru_cache(maxsize=256)
def calibrate_noise_multiplier(
    *, target_epsilon: float, delta: float, sample_rate: float, num_steps: int
) -> float:
    """The noise multiplier for a budget, rounded up to five significant digits.

    Guarantee:
        `epsilon_pld` of the value that is returned is at most `target_epsilon`: it is evaluated
        after the rounding, not before.

    Raises:
        UserError: the budget cannot be reached in so many steps; the message says what can.
    """
    if not (target_epsilon > 0 and math.isfinite(target_epsilon)):
        raise UserError(f"target_epsilon={target_epsilon} must be a positive number.")
    budget = _Budget(target_epsilon, delta, sample_rate, num_steps)
    if budget.epsilon(LARGEST_NOISE_MULTIPLIER) > target_epsilon:
        raise UserError(budget.unreachable_message())
    noise_multiplier = _round_up(budget.rough_noise_multiplier())
    while budget.epsilon(noise_multiplier) > target_epsilon:
        noise_multiplier = _round_up(noise_multiplier * (1 + 10.0**-_SIGNIFICANT_DIGITS))
    return noise_multiplier


class _Budget:
    """A target epsilon and delta, to be kept over steps at a sample rate."""

    def __init__(
        self, target_epsilon: float, delta: float, sample_rate: float, num_steps: int
    ) -> None:
        self.target_epsilon = target_epsilon
        self.delta = delta
        self.sample_rate = sample_rate
        self.num_steps = num_steps

    def epsilon(self, noise_multiplier: float, num_steps: int | None = None) -> float:
        return epsilon_pld(
            noise_multiplier=noise_multiplier,
            sample_rate=self.sample_rate,
            num_steps=self.num_steps if num_steps is None else num_steps,
            delta=self.delta,
        )

    def rough_noise_multiplier(self) -> float:
        """Where epsilon, on a coarse grid and then on the fine one, about meets the target."""
        low, high = self._bracket()
        if low == high:
            return low
        log_noise = optimize.brentq(self._log_excess, math.log(low), math.log(high), xtol=1e-5)
        # The coarse grid reads high; one secant step on the fine grid takes most of that back.
        slope = (self._log_excess(log_noise + 0.01) - self._log_excess(log_noise)) / 0.01
        fine_excess = math.log(self.epsilon(math.exp(log_noise)) / self.target_epsilon)
        return math.exp(log_noise - fine_excess / slope)

    def _bracket(self) -> tuple[float, float]:
        """Two noise multipliers, a factor of two apart, with the target's between them."""
        low, high = 1.0, 2.0
        while self._log_excess(math.log(high)) > 0 and high < LARGEST_NOISE_MULTIPLIER:
            low, high = high, min(2 * high, LARGEST_NOISE_MULTIPLIER)
        while self._log_excess(math.log(low)) < 0:
            if low == SMALLEST_NOISE_MULTIPLIER:
                return low, low
            low, high = max(low / 1.5, SMALLEST_NOISE_MULTIPLIER), low
        if self._log_excess(math.log(high)) > 0:
            return high, high
        return low, high

    def _log_excess(self, log_noise: float) -> float:
        mechanism = Mechanism(
            noise_multiplier=math.exp(log_noise),
            sample_rate=self.sample_rate,
            num_steps=self.num_steps,
        )
        epsilon = composed_pld((mechanism,), coarsen=10).get_epsilon_for_delta(self.delta)
        return math.log(max(epsilon, 1e-12) / self.target_epsilon)

    def unreachable_message(self) -> str:
        largest = LARGEST_NOISE_MULTIPLIER
        message = (
            f"epsilon={self.target_epsilon:g} is not reachable in num_steps={self.num_steps} at "
            f"sample_rate={self.sample_rate:.4g} and delta={self.delta:g}: with the largest "
            f"noise multiplier, {largest:g}, it is {self.epsilon(largest):.4g}. "
        )
        num_steps = self._most_steps(largest)
        if num_steps:
            return message + f"Raise epsilon to that, or take at most {num_steps} steps."
        return message + "Raise epsilon, or lower the expected batch size: one step is too much."

    def _most_steps(self, noise_multiplier: float) -> int:
        """The largest number of steps that keeps the target, by bisection; 0 if not even one."""
        low, high = 0, self.num_steps
        while high - low > 1:
            middle = (low + high) // 2
            if self.epsilon(noise_multiplier, middle) <= self.target_epsilon:
                low = middle
            else:
                high = middle
        return low


def _round_up(value: float) -> float:
    """The next number of five significant digits at or above `value`."""
    decimals = _SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(value))
    rounded = round(value, decimals)
    return rounded if rounded >= value else round(rounded + 10.0**-decimals, decimals)
