"""Study tables, readers, synthetic radiographs, splits, decoding and the image store.

Names are imported on first use, so that `import dpmed.data` costs nothing and reaches no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpmed.data.cache.store import ImageStore as ImageStore
    from dpmed.data.cache.store import SkippedImage as SkippedImage
    from dpmed.data.cache.store import prepare_generated as prepare_generated
    from dpmed.data.cache.store import prepare_images as prepare_images
    from dpmed.data.datasheet import data_sheet as data_sheet
    from dpmed.data.decoding import UnreadableImageError as UnreadableImageError
    from dpmed.data.decoding import decode_image as decode_image
    from dpmed.data.decoding import read_pixels as read_pixels
    from dpmed.data.preprocessing import Preprocessing as Preprocessing
    from dpmed.data.preprocessing import preprocessing_preset as preprocessing_preset
    from dpmed.data.readers.chestxray14 import (
        chestxray14_metadata_sha256 as chestxray14_metadata_sha256,
    )
    from dpmed.data.readers.chestxray14 import has_split_lists as has_split_lists
    from dpmed.data.readers.chestxray14 import read_chestxray14 as read_chestxray14
    from dpmed.data.readers.chexpert import read_chexpert as read_chexpert
    from dpmed.data.readers.kermany import read_kermany as read_kermany
    from dpmed.data.readers.manifest import read_manifest as read_manifest
    from dpmed.data.readers.medmnist import read_medmnist as read_medmnist
    from dpmed.data.readers.mimic_cxr_jpg import read_mimic_cxr_jpg as read_mimic_cxr_jpg
    from dpmed.data.readers.padchest import read_padchest as read_padchest
    from dpmed.data.readers.taixray import read_taixray as read_taixray
    from dpmed.data.readers.vindr_cxr import read_vindr_cxr as read_vindr_cxr
    from dpmed.data.readers.volume_table import read_volume_table as read_volume_table
    from dpmed.data.splits import DuplicateImage as DuplicateImage
    from dpmed.data.splits import assign_splits as assign_splits
    from dpmed.data.splits import check_splits as check_splits
    from dpmed.data.splits import find_duplicate_images as find_duplicate_images
    from dpmed.data.splits import split_hash as split_hash
    from dpmed.data.splits import subsample_patients as subsample_patients
    from dpmed.data.splits import subsample_train as subsample_train
    from dpmed.data.splits import unit_keys as unit_keys
    from dpmed.data.splits import write_splits as write_splits
    from dpmed.data.synthetic import GENERATOR_VERSION as GENERATOR_VERSION
    from dpmed.data.synthetic import PUBLIC_SITE as PUBLIC_SITE
    from dpmed.data.synthetic import SITES as SITES
    from dpmed.data.synthetic import captions as captions
    from dpmed.data.synthetic import contact_sheet as contact_sheet
    from dpmed.data.synthetic import iterate_radiographs as iterate_radiographs
    from dpmed.data.synthetic import render_radiographs as render_radiographs
    from dpmed.data.synthetic import synthetic_cohort as synthetic_cohort
    from dpmed.data.table import COLUMNS as COLUMNS
    from dpmed.data.table import add_note as add_note
    from dpmed.data.table import has_patient_ids as has_patient_ids
    from dpmed.data.table import label_columns as label_columns
    from dpmed.data.table import validate_table as validate_table
    from dpmed.data.volumes.preprocessing import VolumePreprocessing as VolumePreprocessing
    from dpmed.data.volumes.preprocessing import preprocess_volume as preprocess_volume
    from dpmed.data.volumes.rows import prepare_volumes as prepare_volumes

MODULE_OF_NAME = {
    "ImageStore": "cache.store",
    "SkippedImage": "cache.store",
    "prepare_generated": "cache.store",
    "prepare_images": "cache.store",
    "chestxray14_metadata_sha256": "readers.chestxray14",
    "has_split_lists": "readers.chestxray14",
    "read_chestxray14": "readers.chestxray14",
    "data_sheet": "datasheet",
    "UnreadableImageError": "decoding",
    "decode_image": "decoding",
    "read_pixels": "decoding",
    "read_chexpert": "readers.chexpert",
    "read_kermany": "readers.kermany",
    "read_manifest": "readers.manifest",
    "read_medmnist": "readers.medmnist",
    "read_mimic_cxr_jpg": "readers.mimic_cxr_jpg",
    "read_padchest": "readers.padchest",
    "read_taixray": "readers.taixray",
    "read_vindr_cxr": "readers.vindr_cxr",
    "Preprocessing": "preprocessing",
    "preprocessing_preset": "preprocessing",
    "DuplicateImage": "splits",
    "assign_splits": "splits",
    "check_splits": "splits",
    "find_duplicate_images": "splits",
    "split_hash": "splits",
    "subsample_patients": "splits",
    "subsample_train": "splits",
    "unit_keys": "splits",
    "write_splits": "splits",
    "GENERATOR_VERSION": "synthetic",
    "PUBLIC_SITE": "synthetic",
    "SITES": "synthetic",
    "captions": "synthetic",
    "contact_sheet": "synthetic",
    "iterate_radiographs": "synthetic",
    "render_radiographs": "synthetic",
    "synthetic_cohort": "synthetic",
    "COLUMNS": "table",
    "add_note": "table",
    "has_patient_ids": "table",
    "label_columns": "table",
    "validate_table": "table",
    "read_volume_table": "readers.volume_table",
    "VolumePreprocessing": "volumes.preprocessing",
    "preprocess_volume": "volumes.preprocessing",
    "prepare_volumes": "volumes.rows",
}


def __getattr__(name: str) -> Any:
    if name not in MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{MODULE_OF_NAME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(MODULE_OF_NAME)
