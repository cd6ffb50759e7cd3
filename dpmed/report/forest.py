"""A table whose rows carry counts, an AUROC with its bar, and further rates: the report's main form.

The template draws the bar with the percentages of `IntervalScale`; nothing here writes HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpmed.report.numbers import Estimate
from dpmed.report.plot_intervals import IntervalRow, IntervalScale, auroc_scale


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """One label or one group.

    Attributes:
        main: the estimate that gets the bar.
        others: one estimate for each further column of the table, in its order.
    """

    name: str
    main: Estimate
    others: Sequence[Estimate] = ()
    is_summary: bool = False


@dataclass(frozen=True, kw_only=True)
class ForestTable:
    """Rows on one scale.

    Attributes:
        first: heading of the first column.
        columns: headings of the further columns.
        reference: value of the dashed line; None for no line.
    """

    caption: str
    first: str
    rows: Sequence[ForestRow]
    scale: IntervalScale
    columns: Sequence[str] = ()
    reference: float | None = None

    @property
    def has_counts(self) -> bool:
        """Whether any row says how many cases it rests on."""
        return any(row.main.num_positive is not None for row in self.rows)

    def interval_rows(self) -> list[IntervalRow]:
        """The same rows for a picture."""
        return [
            IntervalRow(name=row.name, estimate=row.main, heading=self.first) for row in self.rows
        ]


def forest_table(
    rows: Sequence[ForestRow],
    *,
    caption: str,
    first: str,
    columns: Sequence[str] = (),
    reference: float | None = None,
    scale: IntervalScale | None = None,
) -> ForestTable:
    """Rows with a scale that holds all their intervals, unless a common scale is given."""
    return ForestTable(
        caption=caption,
        first=first,
        rows=rows,
        columns=columns,
        reference=reference,
        scale=scale or auroc_scale([row.main for row in rows]),
    )
