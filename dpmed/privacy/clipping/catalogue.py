"""Which rule serves which module of the user's model.

A rule is chosen only where its mathematics is that of the module's own forward: by the type whose
forward the module runs, or by the full name of a known subclass. Everything else with trainable
parameters gets the generic rule. No import of the libraries named here is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from dpmed.errors import UserError
from dpmed.privacy.clipping.convnext import RecordingConvNeXtBlock
from dpmed.privacy.clipping.convolution import RecordingConv, symmetric_padding
from dpmed.privacy.clipping.generic import RecordingModule
from dpmed.privacy.clipping.layer import RecordingLayer
from dpmed.privacy.clipping.linear import (
    RecordingLinear,
    RecordingPatchConv,
    RecordingPointwiseConv,
)
from dpmed.privacy.clipping.normalisation import (
    RecordingChannelNorm,
    RecordingGroupNorm,
    RecordingLayerNorm,
)
from dpmed.privacy.clipping.scale import (
    RecordingChannelScale,
    RecordingGlobalResponseNorm,
    RecordingLayerScale,
)

Rule = type[RecordingLayer]

# Modules whose statistics mix the rows of a batch: no unit has a gradient of its own there.
_MIXES_ROWS = nn.modules.batchnorm._BatchNorm

_PARAMETERS_OF_RULES = {"weight", "bias", "gamma"}

_RULE_OF_NAME: dict[str, Rule] = {
    "timm.layers.norm.LayerNorm": RecordingLayerNorm,
    "timm.layers.norm.LayerNorm2d": RecordingChannelNorm,
    "timm.layers.norm.GroupNorm": RecordingGroupNorm,
    "timm.layers.norm.GroupNorm1": RecordingGroupNorm,
    "timm.layers.layer_scale.LayerScale": RecordingLayerScale,
    "timm.layers.layer_scale.LayerScale2d": RecordingChannelScale,
    "timm.layers.grn.GlobalResponseNorm": RecordingGlobalResponseNorm,
    "timm.models.convnext.ConvNeXtBlock": RecordingConvNeXtBlock,
}


def choose_rules(model: nn.Module) -> Iterator[tuple[str, nn.Module, Rule]]:
    """Name, module and rule of every module that must record; each module once.

    Raises:
        UserError: a module mixes the rows of a batch, or cannot be recorded at all.
    """
    yield from _rules_below("", model, seen=set())


def _rules_below(
    name: str, module: nn.Module, seen: set[int]
) -> Iterator[tuple[str, nn.Module, Rule]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    _refuse_if_impossible(name, module)
    if any(p.requires_grad for p in module.parameters(recurse=False)):
        rule = rule_for(module)
        yield name, module, rule
        if issubclass(rule, RecordingModule):
            for child_name, child in module.named_modules(prefix=name):
                _refuse_if_impossible(child_name, child)
            return
    for child_name, child in module.named_children():
        yield from _rules_below(f"{name}.{child_name}" if name else child_name, child, seen)


def _refuse_if_impossible(name: str, module: nn.Module) -> None:
    if isinstance(module, _MIXES_ROWS):
        raise UserError(
            f"Module {name!r} ({type(module).__name__}) mixes the images of a batch, so no patient "
            "has a gradient of their own. Use a model with LayerNorm or GroupNorm, or "
            "opacus.validators.ModuleValidator.fix(model)."
        )
    if parametrize.is_parametrized(module):
        raise UserError(
            f"Module {name!r} is parametrised (torch.nn.utils.parametrize), which has no per-unit "
            "gradient rule. Remove the parametrisation, or freeze the module."
        )


def rule_for(module: nn.Module) -> Rule:
    """The rule made for this module, or the generic one."""
    if not set(module._parameters) <= _PARAMETERS_OF_RULES:
        # Such as the two factors that a hook makes a weight of.
        return RecordingModule
    rule = _RULE_OF_NAME.get(_full_name(type(module)))
    if rule is not None and _suits(rule, module):
        return rule
    return _rule_by_forward(module) or RecordingModule


def _rule_by_forward(module: Any) -> Rule | None:
    forward = type(module).forward
    if forward is nn.Linear.forward:
        return RecordingLinear
    if forward is nn.LayerNorm.forward:
        return RecordingLayerNorm if module.elementwise_affine else None
    if forward is nn.GroupNorm.forward:
        return RecordingGroupNorm
    for conv in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        if forward is conv.forward and type(module)._conv_forward is conv._conv_forward:
            return _convolution_rule(module)
    return None


def _convolution_rule(conv: Any) -> Rule | None:
    padding = symmetric_padding(conv)
    if conv.padding_mode != "zeros" or padding is None:
        return None
    if conv.groups == 1 and not any(padding) and set(conv.dilation) == {1}:
        if set(conv.kernel_size) == {1} and set(conv.stride) == {1}:
            return RecordingPointwiseConv
        if tuple(conv.kernel_size) == tuple(conv.stride):
            return RecordingPatchConv
    return RecordingConv


def _suits(rule: Rule, module: Any) -> bool:
    if rule in (RecordingLayerNorm, RecordingChannelNorm):
        return len(module.normalized_shape) == 1 and not getattr(module, "_fast_norm", False)
    if rule is RecordingConvNeXtBlock:
        return isinstance(module.gamma, nn.Parameter)
    return True


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
