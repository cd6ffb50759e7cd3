"""timm's published ConvNeXt weights: which tag stands for which initialisation, and can it be had.

`check_available` is called before any work, so that a machine without network learns at once what
to do instead; `fetch` returns the file, from the cache of huggingface_hub or by downloading it.

Licences (as timm declares them): V1 on ImageNet and CLIP weights Apache-2.0; ConvNeXt V2
CC-BY-NC-4.0; DINOv3 the DINOv3 licence. The licence of the chosen tag is in the provenance.

Source: DINOv3, Siméoni et al. 2025, arXiv 2508.10104; the others are in `backbone`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import timm
from huggingface_hub import constants

from dpmed.errors import UserError, did_you_mean
from dpmed.models.backbone import check_name
from dpmed.models.domain import read_domain
from dpmed.models.provenance import SeenDataSet
from dpmed.models.shipped import shipped_path
from dpmed.models.weights import check_file

PROBE_TIMEOUT_SECONDS = 5.0
_FILE = "model.safetensors"

# The most pretrained tag of each architecture at its standard resolution.
DEFAULT_TAGS: dict[str, dict[str, str]] = {
    "imagenet": {
        "convnext_atto": "d2_in1k",
        "convnext_atto_ols": "a2_in1k",
        "convnext_femto": "d1_in1k",
        "convnext_femto_ols": "d1_in1k",
        "convnext_pico": "d1_in1k",
        "convnext_pico_ols": "d1_in1k",
        "convnext_nano": "in12k_ft_in1k",
        "convnext_nano_ols": "d1h_in1k",
        "convnext_tiny_hnf": "a2h_in1k",
        "convnext_tiny": "fb_in22k_ft_in1k",
        "convnext_small": "fb_in22k_ft_in1k",
        "convnext_base": "fb_in22k_ft_in1k",
        "convnext_large": "fb_in22k_ft_in1k",
        "convnext_large_mlp": "clip_laion2b_augreg_ft_in1k",
        "convnext_xlarge": "fb_in22k_ft_in1k",
        "convnext_xxlarge": "clip_laion2b_soup_ft_in1k",
        "convnext_zepto_rms": "ra4_e3600_r224_in1k",
        "convnext_zepto_rms_ols": "ra4_e3600_r224_in1k",
        "convnextv2_atto": "fcmae_ft_in1k",
        "convnextv2_femto": "fcmae_ft_in1k",
        "convnextv2_pico": "fcmae_ft_in1k",
        "convnextv2_nano": "fcmae_ft_in22k_in1k",
        "convnextv2_tiny": "fcmae_ft_in22k_in1k",
        "convnextv2_base": "fcmae_ft_in22k_in1k",
        "convnextv2_large": "fcmae_ft_in22k_in1k",
        "convnextv2_huge": "fcmae_ft_in22k_in1k_384",
        "test_convnext": "r160_in1k",
        "test_convnext2": "r160_in1k",
        "test_convnext3": "r160_in1k",
    },
    "dinov3": {
        "convnext_tiny": "dinov3_lvd1689m",
        "convnext_small": "dinov3_lvd1689m",
        "convnext_base": "dinov3_lvd1689m",
        "convnext_large": "dinov3_lvd1689m",
    },
}

# What the parts of timm's tags say about the training data.
_DATA_SET_OF_TAG_PART = {
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in22k": "ImageNet-22k",
    "fcmae": "ImageNet-1k",
    "laion2b": "LAION-2B",
    "laiona": "LAION-Aesthetic",
    "lvd1689m": "LVD-1689M",
}


@dataclass(frozen=True, kw_only=True)
class PretrainedWeights:
    """One published weight file.

    Args:
        architecture: timm's name.
        tag: timm's pretrained tag.
        repository: On the Hugging Face hub.
        licence: As timm declares it; empty if it does not.
        data_sets: What the weights were fitted on, as the tag says.
    """

    architecture: str
    tag: str
    repository: str
    licence: str
    data_sets: tuple[SeenDataSet, ...]

    @property
    def url(self) -> str:
        """Page of the weights on the hub."""
        return f"https://huggingface.co/{self.repository}"


def find_pretrained(*, name: str, init: str, tag: str | None = None) -> PretrainedWeights:
    """The weights that `init` means for an architecture; opens no connection.

    Args:
        name: timm architecture.
        init: "imagenet" or "dinov3".
        tag: One of timm's tags for this architecture in place of the default.

    Raises:
        UserError: The architecture has no such weights (lists those that have), or no such tag.
    """
    _check_init(init)
    tag = tag or _default_tag(name, init)
    config = timm.get_pretrained_cfg(_known_tag(name, tag))
    assert config is not None
    return PretrainedWeights(
        architecture=name,
        tag=tag,
        repository=str(config.hf_hub_id),
        licence=config.license or "",
        data_sets=_data_sets(tag),
    )


def check_available(
    *,
    name: str,
    init: str,
    path: str | Path | None = None,
    sha256: str | None = None,
    tag: str | None = None,
) -> None:
    """Raises UserError unless the start weights can be had; call it before any work.

    Looks at the file (`init=file`, `init=domain`) or in the hub's cache, and only where the cache
    lacks it asks the hub for the file's header, which takes at most `PROBE_TIMEOUT_SECONDS`.

    Raises:
        UserError: Unknown architecture, init or tag; a missing or different file; no cached copy
            and no way to the hub. The message says what to do instead.
    """
    check_name(name)
    if init == "scratch":
        return
    if init == "synthetic":
        shipped_path(name)
        return
    if init == "file":
        check_file(require_path(path), sha256=sha256)
        return
    if init == "domain":
        read_domain(require_path(path, init=init), architecture=name, sha256=sha256)
        return
    weights = find_pretrained(name=name, init=init, tag=tag)
    if _cached(weights) is None:
        _probe(weights)


def fetch(weights: PretrainedWeights) -> Path:
    """The weight file on this machine: the cached copy, or a download into the hub's cache.

    Raises:
        UserError: Neither a cached copy nor a download is possible.
    """
    cached = _cached(weights)
    if cached is not None:
        return cached
    try:
        return Path(huggingface_hub.hf_hub_download(weights.repository, _FILE))
    except Exception as error:  # the hub's client raises errors of its own, of httpx and of the OS
        raise UserError(_how_to_get(weights, error)) from error


def require_path(path: str | Path | None, *, init: str = "file") -> Path:
    """The path as given, or UserError where init=file or init=domain lacks it."""
    if path:
        return Path(path).expanduser()
    if init == "domain":
        raise UserError("init=domain needs init.path=RUN, the folder of a cxr_pretrain run.")
    raise UserError("init=file needs init.path=WEIGHTS, a .safetensors or torch weight file.")


def _check_init(init: str) -> None:
    if init not in DEFAULT_TAGS:
        choices = ["scratch", "synthetic", "file", "domain", *DEFAULT_TAGS]
        raise UserError(
            f"init={init} is not known.{did_you_mean(init, choices)} Choose {', '.join(choices)}."
        )


def _default_tag(name: str, init: str) -> str:
    tags = DEFAULT_TAGS[init]
    if name not in tags:
        raise UserError(
            f"init={init} has no weights for model.name={name}; timm has them for "
            f"{', '.join(tags)}. Choose one of these, another init, or init=file."
        )
    return tags[name]


def _known_tag(name: str, tag: str) -> str:
    full_names = timm.list_pretrained(f"{name}.*")
    if f"{name}.{tag}" not in full_names:
        tags = [full_name.partition(".")[2] for full_name in full_names]
        raise UserError(
            f"init.tag={tag} is no tag of model.name={name} in timm {timm.__version__}."
            f"{did_you_mean(tag, tags)} It has: {', '.join(tags) or 'none'}."
        )
    return f"{name}.{tag}"


def _data_sets(tag: str) -> tuple[SeenDataSet, ...]:
    names = [_DATA_SET_OF_TAG_PART[p] for p in tag.split("_") if p in _DATA_SET_OF_TAG_PART]
    return tuple(SeenDataSet(name=name, licence="its own terms") for name in dict.fromkeys(names))


def _cached(weights: PretrainedWeights) -> Path | None:
    path = huggingface_hub.try_to_load_from_cache(weights.repository, _FILE)
    return Path(path) if isinstance(path, str) else None


def _probe(weights: PretrainedWeights) -> None:
    url = huggingface_hub.hf_hub_url(weights.repository, _FILE)
    try:
        huggingface_hub.get_hf_file_metadata(url, timeout=PROBE_TIMEOUT_SECONDS)
    except Exception as error:  # as in `fetch`: whatever it is, the weights cannot be had
        raise UserError(_how_to_get(weights, error)) from error


def _how_to_get(weights: PretrainedWeights, error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        f"The weights {weights.architecture}.{weights.tag} are not on this machine (looked in "
        f"{constants.HF_HUB_CACHE}) and the hub cannot be reached ({reason}). Do one of these:\n"
        f"  - on a connected machine: hf download {weights.repository} {_FILE}\n"
        f"    then copy its cache folder here and set HF_HOME to the folder that holds hub/\n"
        f"  - init=file init.path=/path/to/{_FILE}, with the file from {weights.url}\n"
        f"  - init=scratch, which needs no weights"
    )
