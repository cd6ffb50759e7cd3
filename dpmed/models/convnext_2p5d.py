"""A 2.5-D ConvNeXt for volumes: slices of three planes through one 2-D backbone, then attention.

Stands between a volume (float32 in [0, 1]) and the loss. The backbone is timm's, so every 2-D
weight file serves. Attention over a volume's slices is built from plain `Linear` layers; the mean
slice asks and all slices answer. Nothing here knows about privacy: a volume's slices lie side by
side as rows of one batch and never meet another volume's.

Shapes: N volumes, D H W voxels, S slices of all planes, F features of a slice, L labels.

Source: the open 2.5-D model of Tayebi Arasteh et al. 2024 (arXiv 2302.01622), with slabs in place
of thin slices.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from dpmed.errors import UserError


class SliceConvNeXt(nn.Module):
    """Volumes (N, 1, D, H, W) with D = H = W to logits (N, L).

    Args:
        twin: from `backbone.build_model`, with the weights to start from; taken apart.
        slice_thickness: voxels averaged into one slice, so that no voxel is left out.
        num_heads: of the attention; must divide the backbone's number of features.
        seed: of the attention's random weights; torch's global generator is left as it was.

    Raises:
        UserError: a number of heads that does not divide the features.
    """

    def __init__(
        self, twin: ConvNeXt, *, slice_thickness: int, num_heads: int, seed: int = 0
    ) -> None:
        super().__init__()
        parts = cast(Any, twin)
        classifier = parts.head.fc
        parts.head.fc = nn.Identity()
        self.slice_thickness = slice_thickness
        self.backbone = twin
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = SliceHead(classifier, num_heads=num_heads)

    @property
    def stages(self) -> nn.Module:
        """The backbone's stages."""
        return cast(Any, self.backbone).stages

    @property
    def norm_pre(self) -> nn.Module:
        """What lies between the last stage and the attention: the norm of a slice's features."""
        return cast(Any, self.backbone).head

    def forward(self, volumes: Tensor) -> Tensor:
        """Logits of volumes in [0, 1]."""
        return self.head.fc(self.forward_head(self.forward_features(volumes)))

    def forward_features(self, volumes: Tensor) -> Tensor:
        """The last stage's maps of all slices (N, S, F, H', W')."""
        slices = slices_of_planes(volumes, thickness=self.slice_thickness)
        maps = cast(Any, self.backbone).forward_features(slices.flatten(0, 1).unsqueeze(1))
        return maps.unflatten(0, slices.shape[:2])

    def forward_intermediates(self, volumes: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last maps, and every stage's with channels last (N, S, H', W', C)."""
        slices = slices_of_planes(volumes, thickness=self.slice_thickness)
        last, maps = cast(Any, self.backbone).forward_intermediates(
            slices.flatten(0, 1).unsqueeze(1)
        )
        by_volume = [each.unflatten(0, slices.shape[:2]).movedim(2, -1) for each in maps]
        return last.unflatten(0, slices.shape[:2]), by_volume

    def forward_head(self, x: Tensor, pre_logits: bool = True) -> Tensor:
        """Features of volumes (N, F) that the last linear layer sees."""
        assert pre_logits
        features = cast(Any, self.backbone).forward_head(x.flatten(0, 1))
        return self.head.attention(features.unflatten(0, x.shape[:2]))

    def get_classifier(self) -> nn.Module:
        """The last linear layer, under timm's name."""
        return self.head.fc


class SliceHead(nn.Module):
    """Attention over slices, and the last linear layer."""

    def __init__(self, classifier: nn.Linear, *, num_heads: int) -> None:
        super().__init__()
        self.attention = SliceAttention(classifier.in_features, num_heads=num_heads)
        self.fc = classifier


class SliceAttention(nn.Module):
    """The mean slice plus what it finds among the slices; at first the mean alone.

    The output's weights start at zero, so that training begins where mean pooling is.

    Args:
        num_features: F.
        num_heads: divides F.
    """

    def __init__(self, num_features: int, *, num_heads: int) -> None:
        super().__init__()
        if num_features % num_heads:
            raise UserError(
                f"model.num_heads={num_heads} must divide the {num_features} features of this "
                "model.name."
            )
        self.num_heads = num_heads
        self.query = nn.Linear(num_features, num_features)
        self.key = nn.Linear(num_features, num_features)
        self.value = nn.Linear(num_features, num_features)
        self.out = nn.Linear(num_features, num_features)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, S, F) to (N, F)."""
        mean = features.mean(dim=1)
        query = self._heads(self.query(mean)[:, None])
        key, value = self._heads(self.key(features)), self._heads(self.value(features))
        scores = query @ key.transpose(-2, -1) / math.sqrt(key.shape[-1])
        found = (scores.softmax(dim=-1) @ value).flatten(1)
        return mean + self.out(found)

    def _heads(self, x: Tensor) -> Tensor:
        """(N, S, F) as (N, heads, S, F / heads)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def slices_of_planes(volumes: Tensor, *, thickness: int) -> Tensor:
    """Axial, coronal and sagittal slabs of cubes: (N, 1, D, D, D) to (N, S, D, D).

    S = 3 · D / thickness. Each slab is the mean of `thickness` slices; a remainder at the end is
    left out.
    """
    assert volumes.ndim == 5, f"volumes must be (N, 1, D, H, W), got {tuple(volumes.shape)}"
    assert len(set(volumes.shape[2:])) == 1, f"volumes must be cubes, got {tuple(volumes.shape)}"
    volume = volumes[:, 0]
    num_slabs = volume.shape[1] // thickness
    planes = [volume, volume.transpose(1, 2), volume.permute(0, 3, 1, 2)]
    slabs = [
        plane[:, : num_slabs * thickness].unflatten(1, (num_slabs, thickness)).mean(dim=2)
        for plane in planes
    ]
    return torch.cat(slabs, dim=1)
