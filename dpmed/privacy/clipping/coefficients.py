"""How strongly each unit's gradient is scaled, and the sensitivity that follows from it.

The clipper asks this file for the coefficients; the plan and the noise ask the clipper for the
sensitivity, and derive it nowhere else. Legend of shape suffixes: B units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dpmed.errors import UserError, did_you_mean

ClippingRule = Literal["flat", "automatic"]
CLIPPING_RULES: tuple[str, ...] = ("flat", "automatic")

# The stability constant of automatic clipping, as its authors use it throughout.
AUTOMATIC_GAMMA = 0.01

# By how much a clipped gradient may exceed the bound through rounding. Under bf16 the norm and the
# sum come from different kernels; in float32 both agree to a few units in the last place.
SLACK_OF_DTYPE = {torch.float64: 0.0, torch.float32: 1e-6, torch.bfloat16: 1e-3}


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """The factor c(n) by which a unit with gradient norm n enters the sum.

    flat:      c = min(1, C / n)
    automatic: c = C / (n + 0.01)

    Guarantee: with C = max_grad_norm · (1 − slack), c(n) · n ≤ C for every n ≥ 0, so adding or
    removing one unit moves the sum by at most `sensitivity` in Euclidean norm, rounding included.

    Source: flat, Abadi et al. 2016 (arXiv 1607.00133), algorithm 1; automatic, Bu et al. 2022
    (arXiv 2206.07136), equation AUTO-S.
    """

    rule: ClippingRule
    max_grad_norm: float
    slack: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in CLIPPING_RULES:
            raise UserError(
                f"privacy.clipping_rule={self.rule!r} is not known; allowed: "
                f"{', '.join(CLIPPING_RULES)}.{did_you_mean(self.rule, CLIPPING_RULES)}"
            )
        if not 0.0 < self.max_grad_norm < float("inf"):
            raise UserError(
                f"privacy.max_grad_norm={self.max_grad_norm} must be a positive, finite number."
            )

    @property
    def sensitivity(self) -> float:
        """The Euclidean norm by which one unit can move the sum."""
        return self.max_grad_norm

    def of_norms(self, norms_B: Tensor) -> Tensor:
        """Factors [B], in the dtype of the norms; 0 where a norm is not finite."""
        bound = self.max_grad_norm * (1.0 - self.slack)
        if self.rule == "flat":
            factors_B = (bound / norms_B).clamp(max=1.0)
        else:
            factors_B = bound / (norms_B + AUTOMATIC_GAMMA)
        return torch.where(torch.isfinite(norms_B), factors_B, torch.zeros_like(norms_B))
