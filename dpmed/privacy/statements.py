"""The privacy statement: the plan in words that a data-protection officer can act on.

Reads a plan and computes nothing new. Figures are rounded against the promise: epsilon up, so that
no printed number is better than the guaranteed one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpmed.privacy.plan_record import PrivacyPlan


def statement(plan: PrivacyPlan) -> str:
    """One paragraph a line; the first words say whether there is a guarantee at all."""
    if not plan.enabled:
        return "\n".join([NO_GUARANTEE, *notes(plan)])
    paragraphs = [
        *([] if plan.private else [NOT_PRIVATE]),
        _promise(plan),
        _meaning(plan),
        _method(plan),
        "Covered: " + " ".join(covered(plan)),
        "Not covered: " + " ".join(not_covered(plan)),
        *notes(plan),
        FLOATING_POINT,
    ]
    return "\n".join(paragraphs)


NO_GUARANTEE = (
    "NOT PRIVATE: this run trains without differential privacy. Its weights may reveal who was in "
    "the training data and what their images show; nothing is promised to anyone."
)
NOT_PRIVATE = (
    "NOT PRIVATE: the noise comes from a key that was handed in, so whoever knows the key can take "
    "the noise away. Everything below says what the same run would promise under a secret key."
)
FLOATING_POINT = (
    "Numerical caveat: the proof is about Gaussian noise in real numbers. A computer adds rounded "
    "(floating-point) noise to rounded sums, which in principle leaks a little more; epsilon does "
    "not include this, and this statement does not bound it."
)


def covered(plan: PrivacyPlan) -> list[str]:
    """Sentences on what epsilon protects."""
    whose = (
        "all images of every training patient with their labels"
        if plan.unit == "patient"
        else "every single training image with its labels"
    )
    return [
        f"What is learnt of {whose} from the released final weights, and from everything that is "
        "computed from these weights alone."
    ]


def not_covered(plan: PrivacyPlan) -> list[str]:
    """Sentences on what leaves a run without being protected by epsilon."""
    del plan
    return [
        "Evaluation results, thresholds, prevalences and every other number computed directly from "
        "patients' data, whichever split they are in.",
        "Validation and test patients.",
        "Other runs on the same data: the ledger of the data set composes them, and settings that "
        "were chosen by comparing runs on it spend budget too.",
        "The folder of the run: checkpoints, predictions and logs are as sensitive as the data.",
        "What the model's use reveals about a population, as any study does.",
    ]


def notes(plan: PrivacyPlan) -> list[str]:
    """Warnings that belong to this plan in particular."""
    if not plan.enabled:
        return []
    candidates = [_delta_note(plan), _image_note(plan), _noise_note(plan), _mu_note(plan)]
    return [note for note in candidates if note]


def round_up(value: float) -> str:
    """Three decimals, or three digits below 1, never below the value."""
    if not 0 < value < math.inf:
        return f"{value:g}"
    decimals = 3 if value >= 1 else 2 - math.floor(math.log10(value))
    # The inner rounding keeps 8.0 from becoming 8.001 through the binary product.
    scaled = math.ceil(round(value * 10**decimals, 6))
    return f"{scaled / 10**decimals:.10g}"


def _promise(plan: PrivacyPlan) -> str:
    what = (
        "each training patient, with all images of that patient together"
        if plan.unit == "patient"
        else "each single training image, NOT each patient"
    )
    return (
        f"Promise: the released weights are differentially private for {what}: epsilon "
        f"{round_up(plan.epsilon)} at delta {plan.delta:g} (adding or removing one {plan.unit}; "
        f"asked for: epsilon {plan.target_epsilon:g})."
    )


def _meaning(plan: PrivacyPlan) -> str:
    percent = round_up(100 * plan.membership_accuracy)
    return (
        f"Meaning: whatever anyone concludes from the weights would be about as likely without any "
        f"one {plan.unit}: at most {_factor(plan.epsilon)} times as likely, apart from cases of "
        f"probability {plan.delta:g}. Someone who knows everything else and must guess whether "
        f"one {plan.unit} took part is right at most {percent} % of the time; a coin flip is right "
        "50 %."
    )


def _factor(epsilon: float) -> str:
    """e^epsilon, rounded up."""
    if epsilon > 20:
        return f"e^{math.ceil(epsilon)}"
    factor = math.exp(epsilon)
    return f"{math.ceil(factor):,}" if factor > 10 else f"{math.ceil(100 * factor) / 100:g}"


def _method(plan: PrivacyPlan) -> str:
    views = "1 image" if plan.views_per_unit == 1 else f"{plan.views_per_unit} images"
    return (
        f"How: in each of {plan.num_steps:,} steps every {plan.unit} takes part at random with "
        f"probability {plan.sample_rate:.6g} ({plan.expected_batch_size:,} of {plan.num_units:,} "
        f"{plan.unit}s on average; {plan.num_units:,} is a declared public number, "
        f"{plan.num_units_origin}), with at most {views}; its influence is limited to a norm of "
        f"{plan.sensitivity:g}, and Gaussian noise of {plan.noise_multiplier:.6g} times that norm "
        f"is added under a secret key. Epsilon is an upper bound from privacy loss distributions "
        f"(a second accountant gives at most {round_up(plan.epsilon_second_opinion)})."
    )


def _delta_note(plan: PrivacyPlan) -> str:
    if plan.delta < 1 / plan.num_units:
        return ""
    return (
        f"WARNING: delta {plan.delta:g} is not below 1/N = {1 / plan.num_units:.3g}. Such a delta "
        f"would allow one {plan.unit} in N to be published outright; use one well below 1/N."
    )


def _image_note(plan: PrivacyPlan) -> str:
    if plan.unit != "image":
        return ""
    values = ", ".join(
        f"{round_up(epsilon)} for a patient with {count} images"
        for count, epsilon in plan.patient_epsilon
    )
    return (
        "WARNING: the promise is for one image. A patient with several images is protected less: "
        f"epsilon is {values} (at the same delta), and larger with more. Where patient ids exist, "
        "choose privacy.unit=patient."
    )


def _noise_note(plan: PrivacyPlan) -> str:
    if plan.noise_scale == 1:
        return ""
    return (
        f"Note: the noise is {plan.noise_scale:g} times what the target needs, a sanity check that "
        "is not meant to learn anything."
    )


def _mu_note(plan: PrivacyPlan) -> str:
    shown = f"Note: in terms of Gaussian differential privacy, mu is {round_up(plan.mu)}"
    if plan.mu_regret <= 0.01:
        return shown + f" (regret {plan.mu_regret:.3f})."
    return (
        shown + f", which overstates the leak (regret {plan.mu_regret:.3f}); the whole curve of "
        "delta over epsilon is in the plan."
    )
