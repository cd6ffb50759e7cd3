"""The learning rate moves once a logical step: warm-up, then constant or half a cosine."""

from __future__ import annotations

import pytest
import torch

from dpmed.training.schedule import learning_rate_factor, make_optimizer


def test_warm_up_rises_and_the_cosine_falls_to_nearly_nothing() -> None:
    factor = learning_rate_factor(schedule="cosine", warmup_steps=4, num_steps=20)
    values = [factor(step) for step in range(20)]
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[4:] == sorted(values[4:], reverse=True)
    assert 0 < values[-1] < 0.02


def test_constant_stays_at_one() -> None:
    factor = learning_rate_factor(schedule="constant", warmup_steps=0, num_steps=5)
    assert [factor(step) for step in range(5)] == [1.0] * 5


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD), ("nadam", torch.optim.NAdam)],
)
def test_optimizers_take_their_settings(name: str, kind: type) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = make_optimizer(
        [parameter], name=name, learning_rate=0.5, weight_decay=0.25, momentum=0.75
    )
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert optimizer.param_groups[0]["weight_decay"] == 0.25
