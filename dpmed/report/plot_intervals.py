"""Dots with intervals (a forest plot): as a picture with words, and as the scale of table cells.

On the page each row of a table carries its own small bar, so that number and mark stay together on
a phone; the file written beside the page is the same rows as one picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dpmed.report.figures import Figure
from dpmed.report.numbers import Estimate, decimal
from dpmed.report.svg import Drawing, Frame, linear, nice_ticks

_WIDTH, _ROW, _TOP, _NAMES, _NUMBERS = 560.0, 22.0, 30.0, 150.0, 150.0


@dataclass(frozen=True, kw_only=True)
class IntervalRow:
    """One line: what is measured, and the estimate."""

    name: str
    estimate: Estimate
    heading: str = ""


@dataclass(frozen=True, kw_only=True)
class IntervalScale:
    """Maps values to percent of a cell's width, the same for all rows of a table."""

    low: float
    high: float

    def percent(self, value: float) -> str:
        """Position of a value, such as `37.5%`; values outside stop at the edge."""
        share = (value - self.low) / (self.high - self.low)
        return f"{100 * min(max(share, 0.0), 1.0):.2f}%"

    @property
    def ticks(self) -> list[tuple[str, str]]:
        """Positions and words of the axis."""
        return [(self.percent(tick), f"{tick:g}") for tick in nice_ticks(self.low, self.high, 4)]


def auroc_scale(estimates: Sequence[Estimate]) -> IntervalScale:
    """From chance, or lower where an interval reaches lower, up to one."""
    lows = [item.low if item.low is not None else item.value for item in estimates]
    known = [value for value in lows if value is not None]
    lowest = min([0.5, *known])
    return IntervalScale(low=max(0.0, math.floor(lowest * 10) / 10), high=1.0)


def interval_figure(
    rows: Sequence[IntervalRow],
    *,
    name: str,
    title: str,
    reference: float | None = None,
    scale: IntervalScale | None = None,
) -> Figure:
    """The rows as one picture with their names and numbers.

    Args:
        rows: from top to bottom; a change of `heading` starts a titled block.
        name: file name without ending.
        title: words of the axis.
        reference: value of the dashed line, such as the result over everybody.
        scale: of the axis; that of AUROCs when left out.
    """
    num_headings = len({row.heading for row in rows if row.heading})
    height = _TOP + _ROW * (len(rows) + num_headings) + 40
    drawing = Drawing(width=_WIDTH, height=height, label=f"{title}, one row a group")
    scale = scale or auroc_scale([row.estimate for row in rows])
    left, right = _NAMES, _WIDTH - _NUMBERS
    frame = Frame(
        drawing=drawing, left=left, right=right, top=_TOP - 12, bottom=height - 36,
        x=linear((scale.low, scale.high), (left, right)), y=linear((0, 1), (0, 1)),
    )  # fmt: skip
    frame.x_axis([(tick, f"{tick:g}") for tick in nice_ticks(scale.low, scale.high, 4)], title)
    if reference is not None:
        at = frame.x(reference)
        drawing.line((at, frame.top), (at, frame.bottom), "reference")
    _draw_rows(frame, rows)
    return Figure(name=name, drawing=drawing, data=interval_table(rows))


def interval_table(rows: Sequence[IntervalRow]) -> pd.DataFrame:
    """The rows with every field of their estimates."""
    return pd.DataFrame(
        [
            {
                "block": row.heading,
                "name": row.name,
                "value": row.estimate.value,
                "ci_low": row.estimate.low,
                "ci_high": row.estimate.high,
                "num_positive": row.estimate.num_positive,
                "num_negative": row.estimate.num_negative,
                "reason": row.estimate.reason,
            }
            for row in rows
        ]
    )


def _draw_rows(frame: Frame, rows: Sequence[IntervalRow]) -> None:
    at, heading = _TOP + 6, ""
    for row in rows:
        if row.heading != heading:
            heading = row.heading
            frame.drawing.text((0, at), heading, "strong")
            at += _ROW
        _draw_row(frame, row, at)
        at += _ROW


def _draw_row(frame: Frame, row: IntervalRow, at: float) -> None:
    frame.drawing.text((8 if row.heading else 0, at), row.name, "")
    item = row.estimate
    frame.drawing.text((_WIDTH, at), item.text, "note" if item.value is None else "", "end")
    if item.value is None:
        return
    middle = at - 4
    if item.low is not None and item.high is not None:
        frame.drawing.line((frame.x(item.low), middle), (frame.x(item.high), middle), "bar s1")
    tip = f"{row.name}: {decimal(item.value)} {item.interval} {item.counts}"
    frame.drawing.circle((frame.x(item.value), middle), 4, "dot s1", tip=tip)
