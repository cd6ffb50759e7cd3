"""The statement says the unit, the promise, what it covers and not, and every warning it owes."""

from __future__ import annotations

import dataclasses
import math

import pytest

from dpmed.privacy.plan import PrivacyPlan, make_plan
from dpmed.privacy.statements import round_up


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return make_plan(
        unit="patient",
        target_epsilon=2.0,
        delta=1e-5,
        num_units=5000,
        expected_batch_size=500,
        num_steps=50,
        max_grad_norm=1.0,
        sensitivity=1.0,
        clipping_rule="flat",
        views_per_unit=2,
        precision_slack=0.0,
    )


@pytest.fixture(scope="module")
def image_plan(plan: PrivacyPlan) -> PrivacyPlan:
    return make_plan(
        unit="image",
        target_epsilon=2.0,
        delta=1e-5,
        num_units=5000,
        expected_batch_size=500,
        num_steps=50,
        max_grad_norm=1.0,
        sensitivity=1.0,
        clipping_rule="flat",
        views_per_unit=1,
        precision_slack=0.0,
    )


def test_it_says_who_is_protected_and_how_much(plan: PrivacyPlan) -> None:
    text = plan.statement()
    for words in (
        "each training patient, with all images of that patient together",
        "epsilon 2 at delta 1e-05",
        "adding or removing one patient",
        "right at most",
        "500 of 5,000 patients on average; 5,000 is a declared public number",
        "at most 2 images",
        "Not covered: Evaluation results",
        "Validation and test patients",
        "the ledger of the data set",
        "checkpoints",
        "floating-point",
        "mu is",
    ):
        assert words in text
    assert "NOT PRIVATE" not in text
    assert "WARNING" not in text


def test_a_handed_in_key_is_said_first(plan: PrivacyPlan) -> None:
    text = dataclasses.replace(plan, private=False).statement()
    assert text.startswith("NOT PRIVATE: the noise comes from a key that was handed in")


def test_delta_is_compared_with_the_number_of_units(plan: PrivacyPlan) -> None:
    """From 1/N on it warns: the papers' 6e-6 is above 1/193,311."""
    for num_units, warns in ((100_000, True), (99_999, False), (200_000, True)):
        changed = dataclasses.replace(
            plan, num_units=num_units, sample_rate=plan.expected_batch_size / num_units
        )
        assert ("WARNING: delta 1e-05 is not below 1/N" in changed.statement()) == warns


def test_the_unit_image_gives_the_epsilon_of_patients(image_plan: PrivacyPlan) -> None:
    text = image_plan.statement()
    assert "each single training image, NOT each patient" in text
    epsilons = dict(image_plan.patient_epsilon)
    assert sorted(epsilons) == [2, 3, 5, 10]
    assert 1.5 * image_plan.epsilon < epsilons[2] < epsilons[5] < epsilons[10]
    for num_images, epsilon in epsilons.items():
        assert f"{round_up(epsilon)} for a patient with {num_images} images" in text


def test_figures_are_rounded_against_the_promise(plan: PrivacyPlan) -> None:
    assert plan.epsilon < 2.0
    for value, shown in (
        (7.99939, "8"),
        (7.9981, "7.999"),
        (8.0, "8"),
        (1.0001, "1.001"),
        (0.05079, "0.0508"),
        (0.1, "0.1"),
        (0.012341, "0.0124"),
        (12.3, "12.3"),
        (math.inf, "inf"),
    ):
        assert round_up(value) == shown
        assert float(shown) >= value


def test_the_factor_of_the_meaning_is_not_below_e_to_epsilon(plan: PrivacyPlan) -> None:
    def factor(epsilon: float) -> str:
        changed = dataclasses.replace(plan, epsilon=epsilon, target_epsilon=epsilon)
        return changed.statement().split("without any one patient: at most ")[1].split(" times")[0]

    assert factor(1.0) == "2.72"
    assert factor(8.0) == "2,981"
    assert factor(30.5) == "e^31"


def test_a_poor_fit_of_mu_points_to_the_whole_curve(plan: PrivacyPlan) -> None:
    assert "overstates" in dataclasses.replace(plan, mu_regret=0.011).statement()
    assert "overstates" not in dataclasses.replace(plan, mu_regret=0.009).statement()
