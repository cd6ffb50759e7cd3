"""From the privacy settings to the frozen plan, before any data is opened."""

from __future__ import annotations

from dpmed.config import RunConfig
from dpmed.privacy.plan import PrivacyPlan, disabled_plan, make_plan
from dpmed.stages.learner import Learner
from dpmed.stages.study import declared_num_units


def plan_run(config: RunConfig, learner: Learner) -> PrivacyPlan:
    """The privacy plan of a run.

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
