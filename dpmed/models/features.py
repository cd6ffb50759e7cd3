"""What a ConvNeXt computes of an image on the way to its logits: one vector a stage.

Stands beside `backbone`; used to keep embeddings in files. Shapes: N images, D features of the
last stage, L labels, C channels of a stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Features:
    """Of N images, all from one forward pass.

    Args:
        logits_NL: as the model itself returns them.
        embedding_ND: the pooled, normalised features that the last linear layer sees.
        stages_NC: for each of the stages, its feature map averaged over positions.
    """

    logits_NL: Tensor
    embedding_ND: Tensor
    stages_NC: tuple[Tensor, ...]


def forward_with_features(model: Any, images: Tensor) -> Features:
    """Logits and features of images (N, 1, H, W), or of volumes (N, 1, D, H, W).

    Evaluation mode is the caller's choice.
    """
    last, maps = model.forward_intermediates(images)
    embedding_ND = model.forward_head(last, pre_logits=True)
    return Features(
        logits_NL=model.head.fc(embedding_ND),
        embedding_ND=embedding_ND,
        stages_NC=tuple(_mean_over_positions(each) for each in maps),
    )


def _mean_over_positions(stage_map: Tensor) -> Tensor:
    """(N, C, H, W), or channels last with three further dimensions, to (N, C)."""
    if stage_map.ndim == 4:
        return stage_map.mean(dim=(2, 3))
    return stage_map.mean(dim=(1, 2, 3))
