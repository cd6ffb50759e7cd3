"""From the privacy settings to the frozen plan, before any data is opened."""

from __future__ import annotations

from pathlib import Path

from dpmed.config import RunConfig
from dpmed.errors import UserError
from dpmed.privacy.plan import PrivacyPlan, disabled_plan, make_plan
from dpmed.stages.declared_size import declared_num_units
from dpmed.stages.learner import Learner


def plan_run(config: RunConfig, learner: Learner, run_dir: Path) -> PrivacyPlan:
    """The plan of a run, written to `plan.json` once: a resumed run reads its own back.

    Raises:
        UserError: as `make_run_plan`, or the engine's bound no longer fits the frozen plan.
    """
    path = run_dir / "plan.json"
    if not path.exists():
        plan = make_run_plan(config, learner)
        plan.to_json(path)
        return plan
    plan = PrivacyPlan.from_json(path)
    if learner.clipper is not None and learner.clipper.sensitivity != plan.sensitivity:
        raise UserError(
            f"{path} was made for a bound of {plan.sensitivity} on one unit's contribution, and "
            f"the engine now gives {learner.clipper.sensitivity}. Resume with the same "
            "performance.precision and privacy settings."
        )
    return plan


def make_run_plan(config: RunConfig, learner: Learner) -> PrivacyPlan:
    """A fresh privacy plan from public settings.

    The expected batch is `privacy.expected_batch_size`, capped at `privacy.max_sample_rate` of the
    declared number of units, so that one recipe serves small data sets too; both are public.

    Raises:
        UserError: an impossible budget, or a setting that the guarantee needs is missing.
    """
    privacy = config.privacy
    num_units, origin = declared_num_units(
        config.data, unit=privacy.unit, num_units=privacy.num_units
    )
    expected_batch_size = min(
        privacy.expected_batch_size, max(1, int(privacy.max_sample_rate * num_units))
    )
    if learner.clipper is None:
        return disabled_plan(
            unit=privacy.unit,
            num_units=num_units,
            expected_batch_size=expected_batch_size,
            num_steps=config.training.num_steps,
            views_per_unit=privacy.views_per_unit,
        )
    assert privacy.epsilon is not None
    return make_plan(
        unit=privacy.unit,
        target_epsilon=privacy.epsilon,
        delta=privacy.delta,
        num_units=num_units,
        num_units_origin=origin,
        expected_batch_size=expected_batch_size,
        num_steps=config.training.num_steps,
        max_grad_norm=privacy.max_grad_norm,
        sensitivity=learner.clipper.sensitivity,
        precision_slack=learner.clipper.slack,
        clipping_rule=privacy.clipping_rule,
        views_per_unit=privacy.views_per_unit,
        noise_scale=privacy.noise_scale,
        injected_key=privacy.injected_key is not None,
    )
