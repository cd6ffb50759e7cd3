"""The PLD accountant as an Opacus accountant, named "pld".

Importing this module registers it: Opacus' optimizer advances it through its step hook, and Opacus
finds it by name. It keeps a history of steps; what they cost is in `accounting`.
"""

from __future__ import annotations

from typing import Any

from opacus.accountants import IAccountant, register_accountant

from dpmed.privacy.accounting import Mechanism, compose_epsilon


class PLDAccountant(IAccountant):
    """Counts logical steps and answers with the pessimistic PLD epsilon.

    Example:
        >>> accountant = PLDAccountant()
        >>> optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=0.01))
    """

    def __init__(self) -> None:
        super().__init__()

    def step(self, *, noise_multiplier: float, sample_rate: float) -> None:
        """Count one logical step; equal neighbours share an entry of the history."""
        if self.history and tuple(self.history[-1][:2]) == (noise_multiplier, sample_rate):
            noise_multiplier, sample_rate, num_steps = self.history.pop()
            self.history.append((noise_multiplier, sample_rate, num_steps + 1))
        else:
            self.history.append((noise_multiplier, sample_rate, 1))

    def get_epsilon(self, delta: float, *args: Any, **kwargs: Any) -> float:
        """Epsilon of all steps so far; 0 before the first, infinite after a step without noise."""
        if any(noise_multiplier <= 0 for noise_multiplier, _, _ in self.history):
            return float("inf")
        return compose_epsilon(
            tuple(
                Mechanism(
                    noise_multiplier=float(noise_multiplier),
                    sample_rate=float(sample_rate),
                    num_steps=int(num_steps),
                )
                for noise_multiplier, sample_rate, num_steps in self.history
            ),
            delta=delta,
        )

    def __len__(self) -> int:
        return sum(num_steps for _, _, num_steps in self.history)

    @classmethod
    def mechanism(cls) -> str:
        """The name under which Opacus knows this accountant."""
        return "pld"


# `force` because a reloaded module (notebooks) registers a second time.
register_accountant(PLDAccountant.mechanism(), PLDAccountant, force=True)
