"""How many units there are, as far as the public knows: N of the privacy plan.

N enters the guarantee, so it is declared: by the user, by the settings of a synthetic cohort, or by
what is published of a release that is recognised by the checksum of its metadata. It is never
counted from the private table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dpmed import data
from dpmed.config import (
    ChestXray14Data,
    DataConfig,
    PublicRelease,
    ReleaseData,
    SyntheticData,
    VolumeData,
)
from dpmed.errors import UserError
from dpmed.models.weights import sha256_of
from dpmed.stages.tables import is_medmnist

Unit = Literal["patient", "image"]


def declared_num_units(config: DataConfig, *, unit: Unit, num_units: int | None) -> tuple[int, str]:
    """N for the privacy plan, and where it was declared; `data.fraction` multiplies it.

    Raises:
        UserError: nothing public says how many units there are; prints the line to add.
    """
    size, origin = _whole_size(config, unit, num_units)
    if config.fraction == 1.0:
        return max(1, size), origin
    return max(1, round(size * config.fraction)), f"{origin}, times data.fraction={config.fraction}"


def _whole_size(config: DataConfig, unit: Unit, num_units: int | None) -> tuple[int, str]:
    """Training units at `data.fraction=1`."""
    if num_units is not None:
        return num_units, "declared by privacy.num_units"
    if isinstance(config, SyntheticData):
        size = config.num_patients
        if unit == "image":
            size = round(size * config.mean_images_per_patient)
        share = 1.0 - config.validation_fraction - config.test_fraction
        return round(size * share), "the settings of the synthetic cohort"
    if isinstance(config, ChestXray14Data):
        known = _recognised_size(config, unit)
        if known is not None:
            return known
    if isinstance(config, VolumeData) and is_medmnist(config):
        known = _medmnist_size(config, unit)
        if known is not None:
            return known
    advice = _published_advice(config, unit) if isinstance(config, ReleaseData) else ""
    raise UserError(
        "privacy.num_units is missing: the number of training "
        f"{unit}s N enters the guarantee, so it is declared by you as public and never counted "
        f"from the private table. Add privacy.num_units=N (a round figure near the true one)."
        f"{advice}"
    )


def _recognised_size(config: ChestXray14Data, unit: Unit) -> tuple[int, str] | None:
    assert config.root is not None
    digest = data.chestxray14_metadata_sha256(Path(config.root).expanduser())
    release = config.releases.get(digest)
    if release is None:
        return None
    official = data.has_split_lists(Path(config.split_lists or config.root).expanduser())
    size = _training_size(release, unit) if official else _full_size(release, unit)
    if size is None:
        return None
    share = 1.0 - config.validation_fraction - (0.0 if official else config.test_fraction)
    return round(size * share), f"the published size of {release.name}"


def _medmnist_size(config: VolumeData, unit: Unit) -> tuple[int, str] | None:
    path = Path(str(config.path)).expanduser()
    if not path.is_file():
        raise UserError(f"data.path={config.path} is not a file.")
    release = config.releases.get(sha256_of(path))
    size = None if release is None else _training_size(release, unit)
    if release is None or size is None:
        return None
    return size, f"the published size of the training split of {release.name}"


def _published_advice(config: ReleaseData, unit: Unit) -> str:
    """What to declare where the folder holds the whole release, which only the user knows."""
    release = config.published
    size = _training_size(release, unit)
    if size is None and not release.official_splits:
        size = _full_size(release, unit)
    if size is None:
        return ""
    held_out = sum(
        share for part, share in _shares(config).items() if part not in release.official_splits
    )
    less = " less the shares held out here" if held_out else ""
    return (
        f" {release.name} has about {size:,} training {unit}s (published): with all of it in "
        f"data.root, that is{less} privacy.num_units={round(size * (1.0 - held_out))}."
    )


def _shares(config: DataConfig) -> dict[str, float]:
    return {"validation": config.validation_fraction, "test": config.test_fraction}


def _training_size(release: PublicRelease, unit: Unit) -> int | None:
    return release.num_train_patients if unit == "patient" else release.num_train_images


def _full_size(release: PublicRelease, unit: Unit) -> int | None:
    return release.num_patients if unit == "patient" else release.num_images
