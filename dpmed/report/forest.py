"""A table whose rows carry counts, an AUROC with its bar, and further rates: the main form here.

Rows stand in titled blocks on one common scale. The template draws the bar with the percentages of
`IntervalScale`; nothing here writes HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpmed.report.numbers import Estimate
from dpmed.report.plot_intervals import IntervalRow, IntervalScale


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """One label or one group.

    Attributes:
        main: the estimate that gets the bar; None where there is none of this kind.
        others: one estimate for each further column of the table, in its order.
        kind: "" for a plain row, "summary" for a mean over the others, "gap" for a difference.
        note: said under the name, such as which groups a gap compares.
    """

    name: str
    main: Estimate
    others: Sequence[Estimate | None] = ()
    kind: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ForestBlock:
    """Rows under one title; an empty title is not shown."""

    title: str
    rows: Sequence[ForestRow]


@dataclass(frozen=True, kw_only=True)
class ForestTable:
    """Blocks on one scale.

    Attributes:
        first: heading of the first column.
        columns: headings of the further columns.
        reference: value of the dashed line; None for no line.
    """

    caption: str
    first: str
    blocks: Sequence[ForestBlock]
    scale: IntervalScale
    columns: Sequence[str] = ()
    reference: float | None = None

    def interval_rows(self) -> list[IntervalRow]:
        """The same rows for a picture, without differences, which have another scale."""
        return [
            IntervalRow(name=row.name, estimate=row.main, heading=block.title)
            for block in self.blocks
            for row in block.rows
            if row.kind != "gap"
        ]
