"""The 14 labels of the CheXpert labeller, in CheXpert and MIMIC-CXR-JPG: 1, 0, -1 or blank.

-1 is uncertain and blank is not mentioned. What becomes of each is a setting; by default both are
missing, because missing is never negative unless asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd

from dpmed.data.readers.harmonise import labels_from_columns, own_labels
from dpmed.data.table import rows_named
from dpmed.errors import UserError, did_you_mean

UncertainPolicy = Literal["missing", "negative", "positive"]
BlankPolicy = Literal["missing", "negative"]
CHEXPERT_LABELS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip


def chexpert_labels(
    rows: pd.DataFrame,
    mapping: Mapping[str, Sequence[str]] | None,
    *,
    uncertain: UncertainPolicy,
    blank: BlankPolicy,
    source: str,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Shared labels under the two policies, and notes that say what the policies did.

    Args:
        rows: the 14 columns as text.
        mapping: shared label -> columns; None gives all 14 under their own names.
        uncertain: what -1 means.
        blank: what an empty field means.
        source: the file, named in errors.

    Raises:
        UserError: an unknown policy or label, or a value other than 1, 0, -1 and blank.
    """
    _check_policy("uncertain", uncertain, get_args(UncertainPolicy))
    _check_policy("blank", blank, get_args(BlankPolicy))
    chosen = own_labels(CHEXPERT_LABELS) if mapping is None else mapping
    meaning = {"missing": np.nan, "negative": 0.0, "positive": 1.0}
    columns = {}
    for name in CHEXPERT_LABELS:
        values = pd.to_numeric(rows[name], errors="coerce")
        wrong = (rows[name].notna() & ~values.isin([1.0, 0.0, -1.0])).to_numpy()
        if wrong.any():
            raise UserError(
                f"label {name!r} of {source} has values other than 1, 0, -1 and blank "
                f"({rows_named(wrong)}; for example {rows[name].to_numpy()[wrong][0]!r})."
            )
        is_blank, is_uncertain = values.isna(), values == -1.0
        columns[name] = values.mask(is_uncertain, meaning[uncertain]).mask(is_blank, meaning[blank])
    labels = labels_from_columns(pd.DataFrame(columns), chosen, CHEXPERT_LABELS, source=source)
    return labels, [f"uncertain labels count as {uncertain}, blank labels as {blank}"]


def _check_policy(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(
            f"data.{name}={value!r} must be one of {', '.join(allowed)}."
            f"{did_you_mean(value, allowed)}"
        )
