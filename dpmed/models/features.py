"""What a ConvNeXt computes of an image on the way to its logits: one vector a stage.

Stands beside `backbone`; used to keep embeddings in files. Shapes: N images, D features of the
last stage, L labels, C channels of a stage.
"""

from __future__ import annotations

from dataclasses import dataclass

from timm.models.convnext import ConvNeXt
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


def forward_with_features(model: ConvNeXt, images: Tensor) -> Features:
    """Logits and features of images (N, 1, H, W); evaluation mode is the caller's choice."""
    last, maps = model.forward_intermediates(images)
    embedding_ND = model.forward_head(last, pre_logits=True)
    return Features(
        logits_NL=model.head.fc(embedding_ND),
        embedding_ND=embedding_ND,
        stages_NC=tuple(each.mean(dim=(2, 3)) for each in maps),
    )
