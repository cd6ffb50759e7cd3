"""The average of the weights follows the formula, swaps in and out, and survives a checkpoint."""

from __future__ import annotations

import torch
from torch import nn

from dpmed.training.averaging import WeightAverage


def test_the_average_follows_its_formula_and_leaves_the_weights_alone() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, decay=0.5)
    expected = float(model.weight.detach())
    for step in range(20):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    with average.in_place():
        assert float(model.weight.detach()) == torch.tensor(expected).float()
    assert float(model.weight.detach()) == 19.0


def test_a_saved_average_goes_on_as_if_nothing_happened() -> None:
    model = nn.Linear(2, 2)
    first = WeightAverage(model, decay=0.9)
    with torch.no_grad():
        model.weight.add_(1.0)
    first.update()
    second = WeightAverage(nn.Linear(2, 2), decay=0.9)
    second.load_state_dict(first.state_dict())
    assert second.num_updates == 1
    assert all(
        torch.equal(first.state_dict()[n], second.state_dict()[n]) for n in ("weight", "bias")
    )


def test_frozen_parameters_are_not_followed() -> None:
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    assert set(WeightAverage(model, decay=0.9).state_dict()) == {"bias", ""}
