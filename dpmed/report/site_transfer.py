"""What training elsewhere costs at a site: two models on the same patients, paired.

The statistics are `dpmed.evaluation.comparison`'s; here two predictions files become one number.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpmed.errors import UserError
from dpmed.evaluation.comparison import compare
from dpmed.evaluation.predictions import label_names, read_predictions
from dpmed.report.numbers import Estimate, estimate


def transfer_difference(
    away: Path, home: Path, *, metrics: Mapping[str, Any]
) -> tuple[Estimate, float | None]:
    """AUROC, mean over labels, of one model minus another on the same images, and its p value.

    Args:
        away: predictions at a site by a model from elsewhere.
        home: predictions of the same images by the site's own model.
        metrics: of the first run, for the settings of its bootstrap.
    """
    try:
        ours, theirs = read_predictions(away), read_predictions(home)
        labels = [label for label in label_names(ours) if label in label_names(theirs)]
        nothing = dict.fromkeys(labels)
        settings = metrics["settings"]
        result = compare(
            ours,
            theirs,
            labels=labels,
            candidate_thresholds=nothing,
            reference_thresholds=nothing,
            subgroups=(),
            intersections=False,
            num_bootstrap=settings["num_bootstrap"],
            seed=settings["seed"],
        )
    except UserError as error:
        reason = Estimate(
            value=None, low=None, high=None, num_positive=None, num_negative=None, reason=str(error)
        )
        return reason, None
    entry = result["auroc"]["macro"]
    return estimate(entry), entry.get("p_value")
