"""The loss of one view, which depends on nothing but that view.

Anything that mixes samples (a mean over the batch, weights normalised over the batch, a focal
normaliser) would let one patient move another one's gradient and void the guarantee.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def per_view_loss(
    logits_VL: Tensor, targets_VL: Tensor, *, pos_weight_L: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy summed over a view's known labels, divided by the number of labels.

    Args:
        logits_VL: scores before the sigmoid.
        targets_VL: 1, 0, or NaN where the label is missing; missing labels contribute nothing.
        pos_weight_L: literal weights of the positives from the configuration.

    Returns:
        Losses in float32 or wider, shape (V,).
    """
    known_VL = ~torch.isnan(targets_VL)
    loss_VL = F.binary_cross_entropy_with_logits(
        logits_VL.to(torch.promote_types(logits_VL.dtype, torch.float32)),
        torch.where(known_VL, targets_VL, 0.0).to(logits_VL.device),
        pos_weight=pos_weight_L,
        reduction="none",
    )
    return torch.where(known_VL, loss_VL, 0.0).sum(dim=1) / logits_VL.shape[1]
