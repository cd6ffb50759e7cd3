"""Fit the tensors of a weight file to a ConvNeXt, with a clear word where they do not fit.

Stands between `weights` (a file's tensors) and the model. Only two differences are bridged: three
stem channels are summed where the model has one, and the head is rebuilt where it answers other
labels. Everything else that differs is an error that names the tensors and the architecture that
would fit; nothing is skipped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import timm
import torch
from timm.models import adapt_input_conv
from timm.models.convnext import ConvNeXt, checkpoint_filter_fn
from torch import Tensor

from dpmed.errors import UserError
from dpmed.models.backbone import architecture_of, backbone_names

_HEAD = "head."
_CLASSIFIER = ("head.fc.weight", "head.fc.bias")
_STEM = "stem.0.weight"
_NUM_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What `fit_weights` did.

    Args:
        num_loaded: Parameters (scalars) copied into the model.
        num_rebuilt: Parameters (scalars) left as the model had them.
        rebuilt: Their tensors' names, all of them in the head.
        stem: What was done to the first convolution, or "unchanged".
    """

    num_loaded: int
    num_rebuilt: int
    rebuilt: tuple[str, ...]
    stem: str


def fit_weights(
    model: ConvNeXt, tensors: Mapping[str, Tensor], *, keep_head: bool, origin: str
) -> FitReport:
    """Copies the tensors into the model in place; on an error the model is unchanged.

    Args:
        model: As `build_model` makes it; what is not loaded keeps its random values.
        tensors: By timm's names, or by those of the ConvNeXt authors, DINOv3's or CLIP's.
        keep_head: False leaves the last linear layer at random even where it fits.
        origin: Where the tensors come from, for messages.

    Raises:
        UserError: Tensors are missing, unexpected, of another shape, or not finite.
    """
    wanted = model.state_dict()
    found = _with_timm_names(dict(tensors), model, origin)
    found, stem = _fit_stem(found, wanted)
    found = _drop_other_head(found, wanted, keep_head=keep_head)
    _check_fit(found, wanted, model, origin)
    _check_finite(found, origin)
    model.load_state_dict(found, strict=False)
    rebuilt = tuple(name for name in wanted if name not in found)
    num_rebuilt = sum(wanted[name].numel() for name in rebuilt)
    num_all = sum(tensor.numel() for tensor in wanted.values())
    return FitReport(
        num_loaded=num_all - num_rebuilt, num_rebuilt=num_rebuilt, rebuilt=rebuilt, stem=stem
    )


def _with_timm_names(tensors: dict[str, Tensor], model: ConvNeXt, origin: str) -> dict[str, Tensor]:
    if _STEM in tensors:
        return tensors
    try:
        return checkpoint_filter_fn(tensors, model)
    except (KeyError, RuntimeError, AttributeError, IndexError) as error:
        raise UserError(
            f"{origin} holds no ConvNeXt: its tensors ({_first(sorted(tensors))}) have neither "
            f"timm's names nor those of the ConvNeXt authors."
        ) from error


def _fit_stem(
    found: dict[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str]:
    """Sums (or repeats) the stem's input channels where their number differs."""
    if _STEM not in found or found[_STEM].ndim != 4:
        return found, "unchanged"
    num_found, num_wanted = found[_STEM].shape[1], wanted[_STEM].shape[1]
    if num_found == num_wanted:
        return found, "unchanged"
    adapted = adapt_input_conv(num_wanted, found[_STEM], base_chans=num_found)
    how = "summed" if num_wanted == 1 else "repeated"
    return {**found, _STEM: adapted}, f"{how} {num_found} -> {num_wanted} channels"


def _drop_other_head(
    found: dict[str, Tensor], wanted: Mapping[str, Tensor], *, keep_head: bool
) -> dict[str, Tensor]:
    weight, bias = _CLASSIFIER
    fits = weight in found and bias in found and found[weight].shape == wanted[weight].shape
    if keep_head and fits:
        return found
    return {name: tensor for name, tensor in found.items() if name not in _CLASSIFIER}


def _check_fit(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], model: ConvNeXt, origin: str
) -> None:
    missing, unexpected, reshaped = _differences(found, wanted)
    if not (missing or unexpected or reshaped):
        return
    shapes = [f"{n} is {tuple(found[n].shape)}, not {tuple(wanted[n].shape)}" for n in reshaped]
    problems = [
        f"{len(names)} {kind} ({_first(names)})"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if names
    ]
    raise UserError(
        f"{origin} does not fit model.name={architecture_of(model)}: of its tensors "
        f"{'; '.join(problems)}. {_fitting_architectures(found)}"
    )


def _differences(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[list[str], list[str], list[str]]:
    """Names that are missing (outside the head), unexpected, and of another shape."""
    missing = [name for name in wanted if name not in found and not name.startswith(_HEAD)]
    unexpected = [name for name in found if name not in wanted]
    reshaped = [n for n in found if n in wanted and found[n].shape != wanted[n].shape]
    return missing, unexpected, reshaped


def _fitting_architectures(found: Mapping[str, Tensor]) -> str:
    """Tries the tensors on every ConvNeXt without allocating one (4 s for all of them)."""
    fitting = []
    for name in backbone_names():
        with torch.device("meta"):
            candidate = timm.create_model(name, num_classes=1)
        wanted = candidate.state_dict()
        if not any(_differences(_ignoring_bridged(found), _ignoring_bridged(wanted))):
            fitting.append(name)
    if not fitting:
        return "No ConvNeXt of timm fits them."
    return f"They fit model.name={' or '.join(fitting)}."


def _ignoring_bridged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the classifier, and with one stem channel: what `fit_weights` bridges."""
    return {
        name: tensor[:, :1] if name == _STEM and tensor.ndim == 4 else tensor
        for name, tensor in tensors.items()
        if name not in _CLASSIFIER
    }


def _check_finite(found: Mapping[str, Tensor], origin: str) -> None:
    broken = [n for n, t in found.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if broken:
        raise UserError(f"{origin} holds NaN or infinite weights in {_first(broken)}.")


def _first(names: list[str]) -> str:
    shown = ", ".join(names[:_NUM_SHOWN])
    return shown if len(names) <= _NUM_SHOWN else f"{shown}, ..."
