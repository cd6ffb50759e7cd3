"""What is in each split, as numbers for `data_sheet.json`: counts, prevalence, attributes.

Everything here is computed from patients' data, so none of it is covered by epsilon; the report
says so. It must never enter training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dpmed.data.table import SPLITS

AGE_GROUPS = {"0-17": (0, 18), "18-39": (18, 40), "40-64": (40, 65), "65+": (65, np.inf)}


def data_sheet(
    table: pd.DataFrame,
    labels: Sequence[str],
    *,
    name: str,
    preprocessing: Mapping[str, Any] | None = None,
    label_harmonisation: Mapping[str, Any] | None = None,
    num_skipped: int = 0,
) -> dict[str, Any]:
    """The data sheet, ready for JSON (no NaN).

    Args:
        table: a study table with splits.
        labels: the label columns to describe.
        name: the data set.
        preprocessing: what was done to each image.
        label_harmonisation: shared label -> what it was made from.
        num_skipped: images that could not be read and were left out.
    """
    sheet: dict[str, Any] = {
        "name": name,
        "notes": list(table.attrs.get("notes", [])),
        "labels": list(labels),
        "splits": {
            split: _describe(rows, labels)
            for split in SPLITS
            if len(rows := table[table["split"] == split])
        },
        "preprocessing": dict(preprocessing or {}),
        "num_skipped": num_skipped,
    }
    if label_harmonisation is not None:
        sheet["label_harmonisation"] = dict(label_harmonisation)
    return sheet


def _describe(rows: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    return {
        "num_patients": _num_patients(rows),
        "num_images": len(rows),
        "prevalence": {label: _prevalence(rows[label]) for label in labels},
        "sex": _counts(rows["sex"]),
        "age": _ages(rows["age"]),
        "view": _counts(rows["view"]),
        "site": _counts(rows["site"]),
    }


def _num_patients(rows: pd.DataFrame) -> int | None:
    """None where rows name no patient: their number is then unknown, not the number of images."""
    return int(rows["patient_id"].nunique()) if rows["patient_id"].notna().all() else None


def _prevalence(values: pd.Series) -> dict[str, int]:
    return {
        "positive": int((values == 1).sum()),
        "negative": int((values == 0).sum()),
        "missing": int(values.isna().sum()),
    }


def _counts(values: pd.Series) -> dict[str, int]:
    counts = {str(name): int(number) for name, number in values.value_counts().items()}
    missing = int(values.isna().sum())
    return {**counts, "missing": missing} if missing else counts


def _ages(years: pd.Series) -> dict[str, Any]:
    known = years.dropna()
    summary: dict[str, Any] = {"missing": int(years.isna().sum())}
    if len(known):
        summary |= {
            "mean": round(float(known.mean()), 1),
            "standard_deviation": round(float(known.std(ddof=0)), 1),
            "median": round(float(known.median()), 1),
            "minimum": round(float(known.min()), 1),
            "maximum": round(float(known.max()), 1),
        }
    summary["groups"] = {
        group: int(((known >= low) & (known < high)).sum())
        for group, (low, high) in AGE_GROUPS.items()
    }
    return summary
