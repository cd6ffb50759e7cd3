"""From a 2-D model with its start weights to the model of volumes that the settings ask for.

Called after `initialise`, so that every source of 2-D weights serves 2.5-D and 3-D models alike.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import torch
from timm.models.convnext import ConvNeXt
from torch import nn

from dpmed.models.convnext3d import inflate
from dpmed.models.convnext_2p5d import SliceConvNeXt
from dpmed.models.provenance import Provenance


def slice_model(
    twin: ConvNeXt,
    provenance: Provenance,
    *,
    slice_thickness: int,
    num_heads: int,
    seed: int,
) -> tuple[nn.Module, Provenance]:
    """The 2.5-D model around a 2-D backbone; the attention is random, and counted as such."""
    model = SliceConvNeXt(twin, slice_thickness=slice_thickness, num_heads=num_heads, seed=seed)
    if provenance.source == "scratch":
        _randomise(model, seed=seed)
    return model, _with_more(provenance, model, stem=provenance.stem)


def inflated_model(
    twin: ConvNeXt, provenance: Provenance, *, kernel_size: int, seed: int
) -> tuple[nn.Module, Provenance]:
    """The 3-D model: inflated 2-D weights, or random ones of its own where there are none."""
    model = inflate(twin, kernel_size=kernel_size)
    if provenance.source == "scratch":
        _randomise(model, seed=seed)
    return model, _with_more(provenance, model, stem="inflated from 2-D to 3-D")


def _with_more(provenance: Provenance, model: nn.Module, *, stem: str) -> Provenance:
    """The same history, with the numbers of parameters of the larger model."""
    num_all = sum(parameter.numel() for parameter in model.parameters())
    if provenance.source == "scratch":
        return dataclasses.replace(provenance, num_rebuilt=num_all)
    attention = {name: p for name, p in model.named_parameters() if ".attention." in name}
    num_rebuilt = provenance.num_rebuilt + sum(p.numel() for p in attention.values())
    return dataclasses.replace(
        provenance,
        num_loaded=num_all - num_rebuilt,
        num_rebuilt=num_rebuilt,
        rebuilt=(*provenance.rebuilt, *attention),
        stem=stem,
    )


def _randomise(model: nn.Module, *, seed: int) -> None:
    """Random weights as large as keeps the size of a signal; the classifier and biases stay.

    timm's own (standard deviation 0.02 everywhere) are made for ten thousands of steps: with them
    a small model is all but linear, and on shapes of some thousand voxels it learnt in 300 steps
    what the same model knew of random features. What starts at zero stays there.
    """
    generator = torch.Generator().manual_seed(seed)
    classifier = cast(Any, model).get_classifier()
    weights = [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear) and module is not classifier
    ]
    with torch.no_grad():
        for weight in weights:
            if weight.any():
                weight.normal_(std=weight[0].numel() ** -0.5, generator=generator)
