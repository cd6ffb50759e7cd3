"""The loss of a view: missing labels, known values, independence of the other views."""

from __future__ import annotations

import math

import pytest
import torch

from dpmed.training.loss import per_view_loss


def test_values_against_the_formula() -> None:
    logits = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    targets = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    expected = (math.log(2.0) + math.log(1 + math.exp(2.0))) / 2
    assert float(per_view_loss(logits, targets)) == pytest.approx(expected, rel=1e-12)


def test_missing_labels_contribute_nothing() -> None:
    logits = torch.tensor([[3.0, -1.0, 50.0]], requires_grad=True)
    targets = torch.tensor([[1.0, float("nan"), float("nan")]])
    loss = per_view_loss(logits, targets)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert logits.grad is not None
    assert logits.grad[0, 0] != 0
    assert logits.grad[0, 1:].tolist() == [0, 0]


def test_a_view_does_not_feel_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator)
    targets = torch.randint(0, 2, (6, 5), generator=generator).float()
    alone = per_view_loss(logits[:1], targets[:1])
    others = targets.clone()
    others[1:] = 1 - others[1:]
    together = per_view_loss(torch.cat([logits[:1], 100 * logits[1:]]), others)
    assert torch.equal(alone[0], together[0])


def test_literal_weights_scale_the_positives_only() -> None:
    logits = torch.zeros(2, 2)
    targets = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    losses = per_view_loss(logits, targets, pos_weight_L=torch.tensor([3.0, 1.0]))
    assert losses.tolist() == pytest.approx([2 * math.log(2), math.log(2)])
