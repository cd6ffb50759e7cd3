"""The schema of every configuration group, checked once before any work.

Hydra composes YAML files from `conf/`; `load_config` turns the result into frozen dataclasses, so
that below `pipeline` nobody meets a DictConfig, a misspelt key or a value of the wrong type. The
defaults live in `conf/` alone: every field here is required. This module never imports torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from dpmed.config_data import (
    STRICT,
    Count,
    DataConfig,
    Fraction,
    ManifestData,
    Positive,
    ReleaseData,
    VolumeData,
)
from dpmed.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _Model:
    """A timm ConvNeXt with a linear head, whatever is built around it."""

    name: str
    in_chans: Literal[1, 3]
    drop_path_rate: Fraction
    ls_init_value: Positive | None
    input_mean: float
    input_std: Positive
    trainable: Literal["full", "head", "last_stage", "norm_and_bias", "lora"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImageModel(_Model):
    """The ConvNeXt itself, for images."""

    kind: Literal["2d"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SliceModel(_Model):
    """For volumes: slices of three planes through the ConvNeXt, then attention over slices."""

    kind: Literal["2.5d"]
    slice_thickness: Count
    num_heads: Count


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InflatedModel(_Model):
    """For volumes: the ConvNeXt with 3-D kernels."""

    kind: Literal["3d"]
    kernel_size: Literal[3, 5, 7]


ModelConfig = Annotated[ImageModel | SliceModel | InflatedModel, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InitConfig:
    """Where the weights come from before the first private step."""

    source: Literal["scratch", "synthetic", "imagenet", "dinov3", "file", "domain"]
    path: str | None
    sha256: str | None
    tag: str | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PrivacyConfig:
    """What is promised, and to whom; every field changes the guarantee or the result."""

    enabled: bool
    unit: Literal["patient", "image"]
    epsilon: Positive | None
    delta: Annotated[float, Field(gt=0.0, lt=1.0)]
    num_units: Count | None
    expected_batch_size: Count
    max_sample_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    max_grad_norm: Positive
    clipping_rule: Literal["flat", "automatic"]
    views_per_unit: Count
    repeat_views: bool
    noise_scale: Annotated[float, Field(ge=1.0)]
    ledger_dir: str
    injected_key: str | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingConfig:
    """The optimisation, counted in logical steps."""

    num_steps: Count
    optimizer: Literal["adamw", "sgd", "nadam"]
    learning_rate: Positive
    weight_decay: Annotated[float, Field(ge=0.0)]
    momentum: Fraction
    warmup_steps: Annotated[int, Field(ge=0)]
    schedule: Literal["constant", "cosine"]
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)]
    pos_weight: list[Positive] | None
    checkpoint_every_steps: Count
    permute_labels: bool
    pretraining: bool


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentationConfig:
    """How far training images are changed at random (`dpmed.training.augmentation`)."""

    rotation_degrees: Annotated[float, Field(ge=0.0, le=180.0)]
    translation: Fraction
    scale: Annotated[float, Field(ge=0.0, lt=1.0)]
    contrast: Fraction
    horizontal_flip: bool


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluationConfig:
    """What is measured on the finished model."""

    num_bootstrap: Annotated[int, Field(ge=200)]
    subgroups: list[str]
    age_bins: str | list[float]
    intersections: bool
    prevalence_matched: bool
    min_positives: Count
    min_negatives: Count
    embeddings: bool
    max_embedded_units: Count | None
    private_probe_epsilon: Positive | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LoggerConfig:
    """Where curves and results go."""

    name: Literal["csv", "wandb"]
    project: str
    entity: str | None
    mode: Literal["offline", "online"]
    log_nonprivate_side_outputs: bool


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PerformanceConfig:
    """Speed only: nothing here changes a result beyond rounding."""

    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed"]
    physical_batch_size: Count
    clipping_engine: Literal["onepass", "opacus_hooks", "opacus_functorch"]
    compile: bool
    channels_last: bool
    num_threads: Annotated[int, Field(ge=0)]
    keep_freed_memory: bool
    num_workers: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunConfig:
    """One run, whole."""

    name: str
    seed: Annotated[int, Field(ge=0)]
    resume: str | None
    on_changed_replay: Literal["refuse", "charge"]
    data: DataConfig
    model: ModelConfig
    init: InitConfig
    privacy: PrivacyConfig
    training: TrainingConfig
    augmentation: AugmentationConfig
    evaluation: EvaluationConfig
    logger: LoggerConfig
    performance: PerformanceConfig

    @property
    def config_hash(self) -> str:
        """Hash of everything that can change the result: not `resume`, `logger`, `performance`."""
        relevant = {
            key: value
            for key, value in to_mapping(self).items()
            if key not in ("resume", "on_changed_replay", "logger", "performance")
        }
        canonical = json.dumps(relevant, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


_ADAPTER = TypeAdapter(RunConfig)
_CHOSEN_BY = {"data": "reader", "model": "kind"}  # the key that says which schema a group has


def load_config(mapping: Mapping[str, Any]) -> RunConfig:
    """Checks a composed configuration and freezes it.

    Args:
        mapping: plain nested dictionaries, interpolations resolved.

    Raises:
        UserError: names every setting that is missing, misspelt or out of range, then the
            settings that contradict one another.
    """
    try:
        config = _ADAPTER.validate_python(dict(mapping))
    except ValidationError as error:
        raise UserError(_explain(error, mapping)) from None
    _check_across_groups(config)
    return config


def to_mapping(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain dictionaries, the inverse of `load_config`."""
    return _ADAPTER.dump_python(config, mode="json")


def known_keys(mapping: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every dotted key of a nested mapping, groups included."""
    keys = []
    for name, value in mapping.items():
        keys.append(f"{prefix}{name}")
        if isinstance(value, Mapping):
            keys.extend(known_keys(value, prefix=f"{prefix}{name}."))
    return keys


def _explain(error: ValidationError, mapping: Mapping[str, Any]) -> str:
    lines = [_explain_one(item, mapping) for item in error.errors()]
    return "\n".join(lines)


def _explain_one(item: Any, mapping: Mapping[str, Any]) -> str:
    # A discriminated union adds the choice's name to the location; it is no key of the mapping.
    location = [str(part) for part in item["loc"]]
    group = location[0]
    if len(location) > 1 and group in _CHOSEN_BY and location[1] not in mapping.get(group, {}):
        location.pop(1)
    name = ".".join(location)
    if item["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{name} is missing."
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{name} is not a setting.{did_you_mean(location[-1], _siblings(location, mapping))}"
    message = item["msg"].replace("Input should be", "allowed is")
    hint = ""
    if item["type"] == "literal_error":
        hint = did_you_mean(str(item["input"]), item["ctx"]["expected"].split("'")[1::2])
    elif item["type"] == "union_tag_invalid":
        name, tag = f"{group}.{_CHOSEN_BY[group]}", item["ctx"]["tag"]
        return f"{name}={tag!r}: allowed is {item['ctx']['expected_tags']}."
    return f"{name}={item['input']!r}: {message}.{hint}"


def _siblings(location: Sequence[str], mapping: Mapping[str, Any]) -> list[str]:
    node: Any = mapping
    for part in location[:-1]:
        node = node.get(part, {}) if isinstance(node, Mapping) else {}
    return [key for key in node if key != location[-1]] if isinstance(node, Mapping) else []


def _check_across_groups(config: RunConfig) -> None:
    data, privacy, training = config.data, config.privacy, config.training
    if config.performance.precision == "16-mixed":
        raise UserError(
            "performance.precision=16-mixed is refused: its loss scaler looks at all samples at "
            "once and breaks the bound on one patient's influence. Use bf16-mixed or 32-true."
        )
    if data.validation_fraction + data.test_fraction >= 1.0:
        raise UserError(
            f"data.validation_fraction={data.validation_fraction} and "
            f"data.test_fraction={data.test_fraction} leave no patient for training."
        )
    duplicates = {label for label in data.labels if data.labels.count(label) > 1}
    if duplicates:
        raise UserError(f"data.labels names {sorted(duplicates)} more than once.")
    if privacy.enabled and privacy.epsilon is None:
        raise UserError(
            "privacy.epsilon is missing: name the target, for example privacy.epsilon=8."
        )
    if training.pos_weight is not None and len(training.pos_weight) != len(data.labels):
        raise UserError(
            f"training.pos_weight has {len(training.pos_weight)} entries for {len(data.labels)} "
            "labels: give one literal weight a label."
        )
    if training.warmup_steps >= training.num_steps:
        raise UserError(
            f"training.warmup_steps={training.warmup_steps} must be below "
            f"training.num_steps={training.num_steps}."
        )
    if training.pretraining and data.public_licence is None:
        raise UserError(
            f"training.pretraining=true: private runs start from these weights, and {data.id} is "
            "not declared public, so they would tell of patients whom no guarantee covers. Where "
            "it is public, name its licence: data.public_licence='CC BY 4.0'."
        )
    if privacy.unit == "patient" and data.unit == "image":
        raise UserError(
            f"privacy.unit=patient: {data.id} names no patients (data.unit=image), so only single "
            "images can be protected. Leave privacy.unit to the data set, or say privacy=image."
        )
    if isinstance(data, ReleaseData) and data.root is None:
        raise UserError(f"data.root is missing: data={data.reader} data.root=/path/to/the/release")
    if isinstance(data, ManifestData) and data.path is None:
        raise UserError("data.path is missing: data=manifest data.path=/path/to/table.csv")
    _check_volumes(config)


def _check_volumes(config: RunConfig) -> None:
    data, model = config.data, config.model
    if isinstance(data, VolumeData) and isinstance(model, ImageModel):
        raise UserError(
            f"model.kind={model.kind} takes images, and data.reader={data.reader} gives volumes. "
            "Choose model=convnext_2p5d or model=convnext3d."
        )
    if not isinstance(data, VolumeData) and not isinstance(model, ImageModel):
        raise UserError(
            f"model.kind={model.kind} takes volumes, and data.reader={data.reader} gives images. "
            "Choose model=convnext, or data=volumes."
        )
    if not isinstance(data, VolumeData):
        return
    if data.path is None:
        raise UserError(
            "data.path is missing: data=volumes data.path=/path/to/table.csv, or a MedMNIST .npz"
        )
    low, high = data.preprocessing.intensity_range or (0.0, 1.0)
    if low >= high:
        raise UserError(
            f"data.preprocessing.intensity_range=[{low:g}, {high:g}] must rise: the value that "
            "becomes black, then the one that becomes white."
        )
    size = data.preprocessing.image_size
    if isinstance(model, SliceModel) and model.slice_thickness > size:
        raise UserError(
            f"model.slice_thickness={model.slice_thickness} is more than the {size} voxels of "
            "data.preprocessing.image_size, so there would be no slice."
        )
