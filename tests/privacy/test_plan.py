"""The plan: its contract over a grid, its file, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dpmed.errors import UserError
from dpmed.privacy import plan as plan_module
from dpmed.privacy.accounting import epsilon_pld
from dpmed.privacy.cross_check import AccountantsDisagree
from dpmed.privacy.plan import PrivacyPlan, disabled_plan, make_plan
from dpmed.privacy.plan_file import schema

SETTINGS: dict[str, Any] = {
    "unit": "patient",
    "target_epsilon": 2.0,
    "delta": 1e-5,
    "num_units": 5000,
    "expected_batch_size": 500,
    "num_steps": 50,
    "max_grad_norm": 1.5,
    "sensitivity": 1.5,
    "clipping_rule": "flat",
    "views_per_unit": 2,
    "precision_slack": 1e-6,
}
STABLE_FIELDS = {
    "unit", "adjacency", "epsilon", "delta", "sample_rate", "num_steps", "noise_multiplier",
    "max_grad_norm", "views_per_unit", "num_units", "expected_batch_size", "accountant", "private",
}  # fmt: skip


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return make_plan(**SETTINGS)


@pytest.fixture(scope="module")
def reference() -> PrivacyPlan:
    return disabled_plan(
        unit="patient", num_units=5000, expected_batch_size=500, num_steps=50, views_per_unit=2
    )


@pytest.mark.parametrize(
    "change",
    [
        {"target_epsilon": 0.5, "num_steps": 200},
        {"target_epsilon": 8.0, "expected_batch_size": 2000},
        {"delta": 1e-6, "expected_batch_size": 64, "num_units": 6400},
        {"target_epsilon": 1.0, "expected_batch_size": 4999},
    ],
)
def test_epsilon_is_the_accountants_and_at_most_the_target(change: dict[str, Any]) -> None:
    settings = {**SETTINGS, **change}
    plan = make_plan(**settings)
    assert plan.sample_rate == settings["expected_batch_size"] / settings["num_units"]
    assert plan.num_steps == settings["num_steps"]
    recomputed = epsilon_pld(
        noise_multiplier=plan.noise_multiplier,
        sample_rate=plan.sample_rate,
        num_steps=plan.num_steps,
        delta=plan.delta,
    )
    assert plan.epsilon == recomputed <= plan.target_epsilon


def test_noise_follows_the_sensitivity_that_the_clipper_states() -> None:
    plan = make_plan(**{**SETTINGS, "max_grad_norm": 1.0, "sensitivity": 3.0})
    assert plan.noise_standard_deviation == 3.0 * plan.noise_multiplier


def test_epsilon_over_steps_is_cheap_monotone_and_ends_at_epsilon(plan: PrivacyPlan) -> None:
    values = [plan.epsilon_after(step) for step in range(51)]
    assert values == sorted(values)
    assert values[0] == 0
    assert values[50] == plan.epsilon
    assert plan.epsilon_after(51) == math.inf
    for num_steps in (1, 20):
        exact = epsilon_pld(
            noise_multiplier=plan.noise_multiplier,
            sample_rate=plan.sample_rate,
            num_steps=num_steps,
            delta=plan.delta,
        )
        assert exact <= plan.epsilon_after(num_steps)


def test_the_plan_is_frozen(plan: PrivacyPlan) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.epsilon = 1.0  # type: ignore[misc]


def test_an_epsilon_above_the_target_is_never_written(plan: PrivacyPlan) -> None:
    with pytest.raises(AssertionError):
        dataclasses.replace(plan, epsilon=2.001)
    with pytest.raises(AssertionError):
        dataclasses.replace(plan, sample_rate=0.11)


def test_disagreeing_accountants_stop_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "epsilon_pld", lambda **settings: 1.5)
    with pytest.raises(AccountantsDisagree):
        make_plan(**SETTINGS)


def test_more_noise_than_needed_lowers_epsilon_and_is_noted(plan: PrivacyPlan) -> None:
    loud = make_plan(**SETTINGS, noise_scale=100.0)
    assert loud.noise_multiplier == pytest.approx(100 * plan.noise_multiplier)
    assert loud.epsilon < 0.02
    assert "100 times what the target needs" in loud.statement()


def test_an_injected_key_stamps_the_plan_not_private(plan: PrivacyPlan, tmp_path: Path) -> None:
    assert plan.private
    injected = make_plan(**SETTINGS, injected_key=True)
    assert not injected.private
    assert injected.statement().startswith("NOT PRIVATE")
    injected.to_json(tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text())["private"] is False


def test_the_file_has_the_stable_fields_and_comes_back_equal(
    plan: PrivacyPlan, tmp_path: Path
) -> None:
    plan.to_json(tmp_path / "plan.json")
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content.keys() >= STABLE_FIELDS
    assert content["statement"] == plan.statement()
    assert content["private"] is True
    restored = PrivacyPlan.from_json(tmp_path / "plan.json")
    assert restored == plan
    assert restored.plan_hash == plan.plan_hash


def test_a_reference_run_promises_nothing(reference: PrivacyPlan, tmp_path: Path) -> None:
    reference.to_json(tmp_path / "plan.json")
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["private"] is False
    assert content["epsilon"] is None
    assert content["covered"] == []
    assert PrivacyPlan.from_json(tmp_path / "plan.json") == reference
    assert reference.epsilon_after(10) == math.inf
    assert reference.statement().startswith("NOT PRIVATE")
    assert reference.noise_standard_deviation == 0


def test_the_schema_is_one_and_requires_the_stable_fields() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert set(schema()["required"]) >= STABLE_FIELDS


def test_a_file_that_was_edited_is_refused(plan: PrivacyPlan, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    plan.to_json(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "num_steps": 49}))
    with pytest.raises(UserError, match="was changed after it was written"):
        PrivacyPlan.from_json(path)
    path.write_text(json.dumps({**content, "epsilon": 0.1}))
    with pytest.raises(UserError, match="was changed after it was written"):
        PrivacyPlan.from_json(path)
    path.write_text(json.dumps({**content, "unit": "hospital"}))
    with pytest.raises(UserError, match=r"\$\.unit is wrong"):
        PrivacyPlan.from_json(path)
    path.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        PrivacyPlan.from_json(path)
    with pytest.raises(UserError, match="is missing"):
        PrivacyPlan.from_json(tmp_path / "none.json")


def test_the_hash_follows_what_training_depends_on_and_nothing_else(plan: PrivacyPlan) -> None:
    for change in (
        {"noise_multiplier": plan.noise_multiplier * 1.01},
        {"private": False},
        {"num_steps": 51},
        {"sensitivity": 1.6},
        {"expected_batch_size": 600, "num_units": 6000},
        {"views_per_unit": 1},
    ):
        assert dataclasses.replace(plan, **change).plan_hash != plan.plan_hash
    last_digit = dataclasses.replace(plan, epsilon=plan.epsilon * (1 - 1e-15), mu=plan.mu * 1.0001)
    assert last_digit.plan_hash == plan.plan_hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_units": None}, r"privacy\.num_units is missing.*privacy\.num_units=N"),
        ({"delta": 1 / math.sqrt(5000)}, r"at least 1/sqrt\(num_units\)"),
        ({"delta": 0.0}, r"privacy\.delta=0"),
        ({"delta": 1e-12}, r"privacy\.delta=1e-12"),
        ({"delta": math.nan}, r"privacy\.delta=nan"),
        ({"expected_batch_size": 5001}, "cannot draw more patients than there are"),
        ({"expected_batch_size": 0}, r"privacy\.expected_batch_size=0"),
        ({"expected_batch_size": 12.5}, r"privacy\.expected_batch_size=12\.5"),
        ({"num_units": 0}, r"privacy\.num_units=0"),
        ({"num_steps": 0}, r"training\.num_steps=0"),
        ({"views_per_unit": 0}, r"privacy\.views_per_unit=0"),
        ({"unit": "pateint"}, "Did you mean 'patient'"),
        ({"target_epsilon": 0.0}, r"privacy\.epsilon=0"),
        ({"target_epsilon": math.inf}, r"privacy\.epsilon=inf"),
        ({"max_grad_norm": -1.0}, r"privacy\.max_grad_norm=-1"),
        ({"sensitivity": math.inf}, "sensitivity=inf"),
        ({"noise_scale": 0.5}, r"privacy\.noise_scale=0\.5"),
        ({"target_epsilon": 1e-5}, "not reachable in num_steps=50"),
    ],
)
def test_settings_that_void_the_promise_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_plan(**{**SETTINGS, **change})


@pytest.mark.parametrize("change", [{"num_units": None}, {"expected_batch_size": 9000}])
def test_a_reference_run_refuses_them_too(change: dict[str, Any]) -> None:
    settings: dict[str, Any] = {
        "unit": "patient", "num_units": 5000, "expected_batch_size": 500, "num_steps": 5,
        "views_per_unit": 1,
    }  # fmt: skip
    with pytest.raises(UserError):
        disabled_plan(**{**settings, **change})
