"""Decision thresholds: chosen once on validation, then frozen for the test set and every site.

A threshold is computed from private labels without noise, so it is tagged as not covered by
epsilon. Refitting it on the set that is being reported flatters every thresholded metric;
that is only ever done for the separate oracle columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dpmed.evaluation.estimability import Cases, Minimum, cases
from dpmed.evaluation.estimates import not_estimable
from dpmed.evaluation.predictions import label_column

Thresholds = Mapping[str, float | None]


def choose_thresholds(
    validation: pd.DataFrame | None, *, labels: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Youden's threshold of every label, as written to the file: value, rule, origin, tag.

    Args:
        validation: predictions of the validation split; None when the run has none.
        labels: the labels to choose for.
    """
    return {label: _entry(validation, label) for label in labels}


def threshold_values(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Only the numbers."""
    return {label: entry["value"] for label, entry in entries.items()}


def youden(rows: Cases) -> float:
    """The observed score with the largest TPR - FPR when scores at or above it are positive.

    Of equals, the largest. Both classes must be present.
    """
    values, index = np.unique(rows.scores, return_inverse=True)
    positives = np.bincount(index[rows.positive], minlength=len(values))
    negatives = np.bincount(index[~rows.positive], minlength=len(values))
    tpr = np.cumsum(positives[::-1])[::-1] / positives.sum()
    fpr = np.cumsum(negatives[::-1])[::-1] / negatives.sum()
    gain = tpr - fpr
    return float(values[len(gain) - 1 - int(np.argmax(gain[::-1]))])


def _entry(validation: pd.DataFrame | None, label: str) -> dict[str, Any]:
    value = None
    if validation is None:
        reason: str | None = not_estimable("there is no validation split to choose a threshold on")
    else:
        rows = cases(label_column(validation, label))
        reason = rows.reason(Minimum(), needs_ranking=True)
        value = youden(rows) if reason is None else None
    entry = {
        "value": value,
        "rule": "youden",
        "chosen_on": "validation",
        "covered_by_epsilon": False,
    }
    return entry if reason is None else {**entry, "reason": reason}
