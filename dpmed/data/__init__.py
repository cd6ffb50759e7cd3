"""Study tables, readers, synthetic radiographs, splits, decoding and the image store.

Names are imported on first use, so that `import dpmed.data` costs nothing and reaches no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

MODULE_OF_NAME = {
    "COLUMNS": "table",
    "add_note": "table",
    "has_patient_ids": "table",
    "label_columns": "table",
    "validate_table": "table",
    "read_chestxray14": "chestxray14",
    "read_manifest": "manifest",
    "assign_splits": "splits",
    "check_splits": "splits",
    "find_duplicate_images": "splits",
    "split_hash": "splits",
    "subsample_patients": "splits",
    "unit_keys": "splits",
    "write_splits": "splits",
    "data_sheet": "datasheet",
    "ImageStore": "cache.store",
    "prepare_generated": "cache.store",
    "prepare_images": "cache.store",
    "Preprocessing": "preprocessing",
    "preprocessing_preset": "preprocessing",
    "decode_image": "decoding",
    "read_pixels": "decoding",
    "UnreadableImageError": "decoding",
}


def __getattr__(name: str) -> Any:
    if name not in MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{MODULE_OF_NAME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(MODULE_OF_NAME)
