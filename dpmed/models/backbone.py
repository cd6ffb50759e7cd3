"""timm ConvNeXt as a multi-label classifier of greyscale images: build it, and read its embedding.

Stands between the images (float32 in [0, 1]) and the loss. The input normalisation is the first,
parameterless entry of the stem, so that every caller sees the same model; its mean and standard
deviation are literals, never computed from the data. Parameter names are timm's, so that timm's
checkpoints load and dpmed's weights load into a plain timm model. Loading weights is
`initialisation`'s work, and nothing here knows about privacy.

Shapes: N images, H and W pixels, C stem channels, L labels, D features.

Source: Liu et al. 2022, A ConvNet for the 2020s (arXiv 2201.03545); Woo et al. 2023, ConvNeXt V2
(arXiv 2301.00808); implementation timm, Apache-2.0. Licences of weights: see `pretrained`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import timm
import torch
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from dpmed.errors import UserError, did_you_mean

# The mean of ImageNet's three channel values: what pretrained weights expect of a grey image.
IMAGENET_GREY_MEAN = 0.449
IMAGENET_GREY_STD = 0.226

_TOTAL_STRIDE = 32  # a stem of stride 4, then three downsamplings by 2

_log = logging.getLogger(__name__)


def build_model(
    *,
    name: str,
    num_labels: int,
    image_size: int,
    in_chans: int = 1,
    mean: float | Sequence[float] = IMAGENET_GREY_MEAN,
    std: float | Sequence[float] = IMAGENET_GREY_STD,
    drop_path_rate: float = 0.0,
    ls_init_value: float | None = None,
    seed: int = 0,
) -> ConvNeXt:
    """A ConvNeXt with random weights: images (N, 1, H, W) float32 in [0, 1] to logits (N, L).

    Args:
        name: A timm architecture, `convnext_atto` to `convnext_xxlarge` or `convnextv2_*`.
        num_labels: L, outputs of the head, one logit a label.
        image_size: H = W in pixels, at least 32.
        in_chans: C, channels of the stem; the grey image is repeated where it is more than 1.
        mean: Subtracted from the image; one number, or one for each stem channel.
        std: The image is divided by it after the subtraction; as `mean`.
        drop_path_rate: Stochastic depth of the last block, in [0, 1).
        ls_init_value: Start of the layer scale `gamma` of each block; None keeps timm's (1e-6 in
            V1, no layer scale in V2). Short training from scratch wants about 1.
        seed: Of the random weights; torch's global generator is left as it was.

    Returns:
        timm's own model in training mode, on the CPU.

    Raises:
        UserError: Unknown name, an image smaller than the stages need, or a value out of range.

    Example:
        >>> model = build_model(name="test_convnext", num_labels=5, image_size=64)
        >>> model(torch.rand(2, 1, 64, 64)).shape
        torch.Size([2, 5])
    """
    check_name(name)
    check_image_size(image_size)
    _check_range("num_labels", num_labels, num_labels >= 1, "at least 1")
    _check_range("model.in_chans", in_chans, in_chans >= 1, "at least 1")
    _check_range(
        "model.drop_path_rate", drop_path_rate, 0 <= drop_path_rate < 1, "from 0 to below 1"
    )
    options: dict[str, Any] = {} if ls_init_value is None else {"ls_init_value": ls_init_value}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(
            name,
            num_classes=num_labels,
            in_chans=in_chans,
            drop_path_rate=drop_path_rate,
            **options,
        )
    assert isinstance(model, ConvNeXt)
    _prepend_normalisation(
        model, _per_channel("model.input_mean", mean, in_chans), _stds(std, in_chans)
    )
    return model


def embed(model: Any, images: Tensor) -> Tensor:
    """Pooled features (N, D) of images (N, 1, H, W), or volumes: what the last linear layer sees.

    Evaluation mode and `no_grad` are the caller's choice.
    """
    return model.forward_head(model.forward_features(images), pre_logits=True)


def architecture_of(model: ConvNeXt) -> str:
    """The timm architecture name that the model was built from."""
    config = cast(dict[str, Any], model.pretrained_cfg)
    return str(config["architecture"])


def backbone_names() -> list[str]:
    """Every architecture that `build_model` accepts; `test_convnext*` are timm's tiny test nets."""
    return timm.list_models(["convnext*", "test_convnext*"])


def check_name(name: str) -> None:
    """Raises UserError with the nearest match unless timm has a ConvNeXt of that name."""
    names = backbone_names()
    if name in names:
        return
    architecture, _, tag = name.partition(".")
    if tag and architecture in names:
        raise UserError(
            f"model.name={name} holds a pretrained tag. Write model.name={architecture} and choose "
            f"the weights by init.tag={tag}."
        )
    raise UserError(
        f"model.name={name} is no ConvNeXt of timm {timm.__version__}."
        f"{did_you_mean(name, names)} It has: {', '.join(names)}."
    )


def check_image_size(image_size: int) -> None:
    """Raises UserError below 32 pixels; warns where a margin of the image is never seen."""
    _check_range(
        "image_size",
        image_size,
        image_size >= _TOTAL_STRIDE,
        f"at least {_TOTAL_STRIDE} pixels, because the four stages divide it by {_TOTAL_STRIDE}",
    )
    lost = image_size % _TOTAL_STRIDE
    if lost:
        _log.warning(
            "image_size=%d is no multiple of %d: up to %d pixels at the right and lower edge do "
            "not reach the last stage",
            image_size,
            _TOTAL_STRIDE,
            lost,
        )


class InputNormalisation(nn.Module):
    """(image - mean) / std, once for each stem channel; has neither parameters nor buffers.

    Plain numbers instead of buffers: Opacus refuses buffers, and a state dict stays timm's.

    Args:
        means: C numbers in the units of the image, [0, 1].
        stds: C positive numbers.
    """

    def __init__(self, means: tuple[float, ...], stds: tuple[float, ...]) -> None:
        super().__init__()
        self.means = means
        self.stds = stds

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 1, H, W) to (N, C, H, W)."""
        assert images.ndim == 4, f"images must be (N, 1, H, W), got {tuple(images.shape)}"
        assert images.shape[1] == 1, f"images must have one channel, got {images.shape[1]}"
        assert images.is_floating_point(), f"images must be float in [0, 1], got {images.dtype}"
        channels = [(images - mean) / std for mean, std in zip(self.means, self.stds, strict=True)]
        return channels[0] if len(channels) == 1 else torch.cat(channels, dim=1)

    def extra_repr(self) -> str:
        """The two literals, shown where the model is printed."""
        return f"means={self.means}, stds={self.stds}"


def _prepend_normalisation(
    model: ConvNeXt, means: tuple[float, ...], stds: tuple[float, ...]
) -> None:
    """Puts the normalisation first under a name, so that `stem.0` stays the first convolution."""
    stem = nn.Sequential()
    stem.add_module("normalise", InputNormalisation(means, stds))
    for child_name, child in model.stem.named_children():
        stem.add_module(child_name, child)
    model.stem = stem


def _stds(std: float | Sequence[float], in_chans: int) -> tuple[float, ...]:
    stds = _per_channel("model.input_std", std, in_chans)
    _check_range("model.input_std", std, min(stds) > 0, "positive")
    return stds


def _per_channel(key: str, value: float | Sequence[float], in_chans: int) -> tuple[float, ...]:
    numbers = (float(value),) * in_chans if isinstance(value, int | float) else tuple(value)
    expected = f"one number or {in_chans} (in_chans={in_chans})"
    _check_range(key, value, len(numbers) == in_chans, expected)
    return tuple(float(number) for number in numbers)


def _check_range(key: str, value: object, is_allowed: bool, allowed: str) -> None:
    if not is_allowed:
        raise UserError(f"{key}={value} is not allowed: it must be {allowed}.")
