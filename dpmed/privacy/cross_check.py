"""A second opinion on epsilon: Opacus' PRV accountant must agree with the PLD.

The two share no code. A run whose accountants disagree beyond their numerical errors stops before
training, because one of them would be wrong. PLD stays the number that is quoted.
"""

from __future__ import annotations

import warnings

import numpy as np
from opacus.accountants import PRVAccountant

from dpmed.privacy.accounting import Mechanism

_LARGEST_EPSILON_ERROR = 0.01
_TOLERANCE = 0.01


class AccountantsDisagree(RuntimeError):  # noqa: N818
    """PLD and PRV differ by more than their errors: a defect, not something a user can mend."""


def epsilon_prv(mechanism: Mechanism, *, delta: float, epsilon_error: float) -> float:
    """Upper bound of epsilon from Opacus' PRV accountant.

    Args:
        mechanism: the steps.
        delta: as everywhere.
        epsilon_error: the error bound that PRV is asked to keep; it adds it to its answer.

    Source:
        Gopi et al. 2021, arXiv 2106.02848.
    """
    accountant = PRVAccountant()
    accountant.history = [(mechanism.noise_multiplier, mechanism.sample_rate, mechanism.num_steps)]
    # At sample rate 1 PRV takes log(0) on the branch that it then discards.
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta, eps_error=epsilon_error))


def require_agreement(mechanism: Mechanism, *, delta: float, epsilon: float) -> float:
    """Compare an epsilon of the PLD accountant with PRV's; returns PRV's.

    PRV's error bound is .01, or a tenth of epsilon where that is smaller: .01 would be all of an
    epsilon of .01.

    Raises:
        AccountantsDisagree: they differ by more than PRV's error bound plus 1 %.
    """
    epsilon_error = min(_LARGEST_EPSILON_ERROR, 0.1 * epsilon)
    second_opinion = epsilon_prv(mechanism, delta=delta, epsilon_error=epsilon_error)
    # Written so that a NaN does not pass.
    if not abs(second_opinion - epsilon) <= epsilon_error + _TOLERANCE * epsilon:
        raise AccountantsDisagree(
            f"The privacy accountants disagree on {mechanism} at delta={delta:g}: PLD says "
            f"{epsilon:.6g}, PRV says {second_opinion:.6g} with an error of at most "
            f"{epsilon_error:g}. Nothing was trained; please report this with the figures."
        )
    return second_opinion
