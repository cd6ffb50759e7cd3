"""From the data settings to the study table: the reader of each release, the splits, the fraction.

Opens no image. What is read here is private: nothing of it may reach the plan.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dpmed import data
from dpmed.config import (
    ChestXray14Data,
    CheXpertData,
    DataConfig,
    KermanyData,
    ManifestData,
    MimicCxrJpgData,
    PadChestData,
    ReleaseData,
    SyntheticData,
    TaixRayData,
    VinDrCxrData,
    VolumeData,
)
from dpmed.data.volumes.files import MedMnistVolumes, VolumeFolder, VolumeSource


def read_table(config: DataConfig) -> pd.DataFrame:
    """The study table of the whole data set, before any image is opened."""
    if isinstance(config, SyntheticData):
        table = data.synthetic_cohort(
            num_patients=config.num_patients, seed=config.seed, sites=config.sites
        )
    elif isinstance(config, ManifestData):
        table = _read_manifest(config)
    elif isinstance(config, VolumeData):
        table = _read_volumes(config)
    else:
        assert config.root is not None
        table = _read_release(config, Path(config.root).expanduser())
    return data.validate_table(table, config.labels, source=config.id)


def split_table(config: DataConfig) -> pd.DataFrame:
    """The rows that a run uses, each in its split, no patient in two.

    Of the training patients only the share `data.fraction` is kept; validation and test patients
    stay the same at every fraction.
    """
    table = data.assign_splits(
        read_table(config),
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        salt=config.split_salt,
    )
    data.check_splits(table)
    if config.fraction < 1.0:
        table = data.subsample_train(table, fraction=config.fraction, salt=config.split_salt)
    return table


def image_root(config: DataConfig) -> Path:
    """The folder that the table's image paths are relative to."""
    assert not isinstance(config, SyntheticData), "its images are drawn, not read"
    if config.root is not None:
        return Path(config.root).expanduser()
    assert isinstance(config, ManifestData | VolumeData)
    assert config.path is not None
    return Path(config.path).expanduser().parent


def is_medmnist(config: VolumeData) -> bool:
    """Whether the volumes are those of one MedMNIST file."""
    return str(config.path).endswith(".npz")


def volume_source(config: VolumeData) -> VolumeSource:
    """What reads the volumes of a table."""
    if is_medmnist(config):
        return MedMnistVolumes(path=Path(str(config.path)).expanduser())
    return VolumeFolder(root=image_root(config))


def _read_release(config: ReleaseData, root: Path) -> pd.DataFrame:
    labels, skipped = config.label_map, config.max_skipped_images
    match config:
        case ChestXray14Data():
            return data.read_chestxray14(
                root, labels=labels, split_lists=config.split_lists, max_skipped_images=skipped
            )
        case KermanyData():
            return data.read_kermany(root, labels=labels)
        case CheXpertData():
            return data.read_chexpert(
                root,
                labels=labels,
                uncertain=config.uncertain,
                blank=config.blank,
                views=config.views,
            )
        case MimicCxrJpgData():
            return data.read_mimic_cxr_jpg(
                root,
                labels=labels,
                uncertain=config.uncertain,
                blank=config.blank,
                views=config.views,
                patients_csv=config.patients_csv,
            )
        case PadChestData():
            return data.read_padchest(
                root, labels=labels, views=config.views, max_skipped_images=skipped
            )
        case VinDrCxrData():
            return data.read_vindr_cxr(root, labels=labels, max_skipped_images=skipped)
        case TaixRayData():
            return data.read_taixray(
                root,
                labels=labels,
                positive_from_grade=config.positive_from_grade,
                fold=config.fold,
                max_skipped_images=skipped,
            )


def _read_volumes(config: VolumeData) -> pd.DataFrame:
    path = Path(str(config.path)).expanduser()
    if is_medmnist(config):
        return data.read_medmnist(path, labels=config.labels)
    return data.read_volume_table(
        path,
        image_root(config),
        columns={name: column for name, column in config.columns.items() if column is not None},
        labels={label: config.label_map.get(label, label) for label in config.labels},
        sex_values=config.sex_values,
    )


def _read_manifest(config: ManifestData) -> pd.DataFrame:
    assert config.path is not None
    return data.read_manifest(
        Path(config.path).expanduser(),
        columns={name: column for name, column in config.columns.items() if column is not None},
        labels={label: config.label_map.get(label, label) for label in config.labels},
        sex_values=config.sex_values,
    )
