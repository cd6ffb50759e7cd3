"""Whether a metric exists on some rows, and if not, the reason in words.

One place decides this for whole splits and for groups, so that a table never shows a number that
its own counts do not carry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpmed.evaluation.estimates import not_estimable
from dpmed.evaluation.predictions import LabelColumn


@dataclass(frozen=True, kw_only=True)
class Minimum:
    """The fewest images of a class that a reported metric may rest on; at least 1 each."""

    positives: int = 1
    negatives: int = 1


@dataclass(frozen=True, kw_only=True)
class Cases:
    """The labelled rows of one group: boolean `rows_N`, and how many are of each class."""

    column: LabelColumn
    rows_N: np.ndarray
    num_positive: int
    num_negative: int

    @property
    def scores(self) -> np.ndarray:
        """Scores of the labelled rows."""
        return self.column.scores_N[self.rows_N]

    @property
    def positive(self) -> np.ndarray:
        """Truth of the labelled rows."""
        return self.column.positive_N[self.rows_N]

    def reason(
        self,
        minimum: Minimum,
        *,
        needs_positives: bool = True,
        needs_negatives: bool = True,
        needs_ranking: bool = False,
    ) -> str | None:
        """Why a metric with these needs is not estimable here; None when it is."""
        if not (self.num_positive or self.num_negative):
            return not_estimable("no labelled images")
        if self.column.reason:
            return not_estimable(self.column.reason)
        for needed, count, least, name in (
            (needs_positives, self.num_positive, minimum.positives, "positives"),
            (needs_negatives, self.num_negative, minimum.negatives, "negatives"),
        ):
            if needed and count < max(least, 1):
                return not_estimable(f"{count} {name}, fewer than {max(least, 1)}")
        if needs_ranking and np.ptp(self.scores) == 0:
            return not_estimable(f"all {len(self.scores)} scores are equal")
        return None


def cases(column: LabelColumn, member_N: np.ndarray | None = None) -> Cases:
    """The labelled rows of a label, of all rows or of a group's."""
    rows_N = column.known_N if member_N is None else column.known_N & member_N
    num_positive = int((rows_N & column.positive_N).sum())
    return Cases(
        column=column,
        rows_N=rows_N,
        num_positive=num_positive,
        num_negative=int(rows_N.sum()) - num_positive,
    )
