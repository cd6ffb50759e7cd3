"""AUROC, or another quantity, against epsilon: a line a series, single runs as open dots.

Runs without DP are a band where there is one series, else a last column of their own, because
bands of several series hide one another. Must not average: it draws the means it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dpmed.report.figures import Figure
from dpmed.report.svg import NUM_SERIES, Drawing, Frame, linear, logarithmic, nice_ticks

#: Of every plot of a sweep against a setting.
WIDTH, HEIGHT, LEFT, TOP = 400.0, 270.0, 42.0, 26.0
_COLUMN = 56.0  # pixels for runs without DP


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A result without DP; low and high are NaN where there is no interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line.

    Attributes:
        points: rows of epsilon, value, low, high; epsilon ascending; low and high may be NaN.
        reference: the same series without DP; None where there is no such run.
        dots: (epsilon, value) of single runs.
    """

    name: str
    points: pd.DataFrame
    reference: Reference | None = None
    dots: Sequence[tuple[float, float]] = ()


def epsilon_figure(
    series: Sequence[Series],
    *,
    name: str,
    title: str,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """The lines of all series on a logarithmic epsilon axis.

    Args:
        series: with at least one point between them.
        name: file name without ending.
        title: words above the vertical axis.
        limits: what the quantity, and so the axis, cannot leave; an AUROC's when left out.
    """
    legend = 14 * len(series) + 8
    drawing = Drawing(
        width=WIDTH, height=HEIGHT + legend, label=f"{title} against epsilon, {len(series)} lines"
    )
    extent = _extent(series, limits)
    has_column = sum(line.reference is not None for line in series) > 1
    frame = _frame(drawing, series, extent, end=_COLUMN if has_column else 0.0)
    frame.x_axis(_epsilon_ticks(series), "Epsilon (log scale; smaller is more private)")
    frame.y_axis([(tick, f"{tick:g}") for tick in nice_ticks(*extent, 5)], title)
    if has_column:
        drawing.text((frame.right - _COLUMN / 2, frame.bottom + 14), "no DP", "tick", "middle")
    for index, line in enumerate(series):
        css, shift = f"s{index % NUM_SERIES + 1}", 4.0 * (index - (len(series) - 1) / 2)
        if line.reference is not None and has_column:
            _draw_in_column(frame, line.name, line.reference, css, shift)
        elif line.reference is not None:
            _draw_band(frame, line.reference, css)
        _draw_line(frame, line, css, shift)
        legend_entry(drawing, index, line.name, css)
    return Figure(name=name, drawing=drawing, data=_table(series))


def legend_entry(drawing: Drawing, index: int, name: str, css: str) -> None:
    """A piece of the line and its name, below the axes."""
    row = HEIGHT + 14 * index + 10
    drawing.line((LEFT, row - 4), (LEFT + 20, row - 4), f"curve {css}")
    drawing.text((LEFT + 26, row), name, "note")


def _frame(
    drawing: Drawing, series: Sequence[Series], extent: tuple[float, float], end: float
) -> Frame:
    """The axes; `end` pixels on the right are left to runs without DP."""
    epsilons = [float(value) for line in series for value in line.points["epsilon"]]
    bottom, right = HEIGHT - 40, WIDTH - 12
    return Frame(
        drawing=drawing,
        left=LEFT,
        right=right,
        top=TOP,
        bottom=bottom,
        x=logarithmic((min(epsilons) / 1.3, max(epsilons) * 1.3), (LEFT, right - end)),
        y=linear(extent, (bottom, TOP)),
    )


def _extent(series: Sequence[Series], limits: tuple[float, float]) -> tuple[float, float]:
    values: list[float] = []
    for line in series:
        values += [float(v) for v in line.points[["value", "low", "high"]].to_numpy().ravel()]
        if line.reference is not None:
            values += [line.reference.value, line.reference.low, line.reference.high]
        values += [value for _, value in line.dots]
    known = [value for value in values if value == value]
    low, high = min(known), max(known)
    margin = max(0.01, 0.08 * (high - low))
    return max(limits[0], low - margin), min(limits[1], high + margin)


def _epsilon_ticks(series: Sequence[Series]) -> list[tuple[float, str]]:
    epsilons = sorted({float(value) for line in series for value in line.points["epsilon"]})
    step = max(1, -(-len(epsilons) // 7))
    return [(value, f"{value:g}") for value in epsilons[::step]]


def _draw_band(frame: Frame, reference: Reference, css: str) -> None:
    """Over the whole width, with its words on the right."""
    left, right = frame.left, frame.right
    value, low, high = (frame.y(level) for level in _levels(reference))
    frame.drawing.polygon([(left, low), (right, low), (right, high), (left, high)], f"band {css}")
    frame.drawing.line((left, value), (right, value), f"curve thin {css}")
    words = f"no DP: {reference.value:.3f}"
    frame.drawing.text((right - 3, value - 4), words, "note", "end")


def _draw_in_column(frame: Frame, name: str, reference: Reference, css: str, shift: float) -> None:
    """An open dot with its interval, right of the largest epsilon."""
    x = frame.right - _COLUMN / 2 + 2.5 * shift
    value, low, high = _levels(reference)
    frame.drawing.line((x, frame.y(low)), (x, frame.y(high)), f"bar {css}")
    tip = f"{name}, no DP: {value:.3f} ({low:.3f}–{high:.3f})"
    frame.drawing.circle((x, frame.y(value)), 3.5, f"open {css}", tip=tip)


def _levels(reference: Reference) -> tuple[float, float, float]:
    has_interval = reference.low == reference.low and reference.high == reference.high
    if has_interval:
        return reference.value, reference.low, reference.high
    return reference.value, reference.value, reference.value


def _draw_line(frame: Frame, line: Series, css: str, shift: float) -> None:
    """The series, shifted sideways by a few pixels so that intervals do not hide one another."""
    rows = line.points[["epsilon", "value", "low", "high"]].to_numpy(float)
    place = [(frame.x(epsilon) + shift, frame.y(value)) for epsilon, value, _, _ in rows]
    frame.drawing.polyline(place, f"curve {css}")
    for epsilon, value in line.dots:
        frame.drawing.circle((frame.x(epsilon) + shift, frame.y(value)), 2.2, f"ring {css}")
    for (x, y), (epsilon, value, low, high) in zip(place, rows, strict=True):
        interval = ""
        if low == low and high == high:
            frame.drawing.line((x, frame.y(low)), (x, frame.y(high)), f"bar {css}")
            interval = f" ({low:.3f}–{high:.3f})"
        tip = f"{line.name}, epsilon {epsilon:g}: {value:.3f}{interval}"
        frame.drawing.circle((x, y), 4, f"dot {css}", tip=tip)


def _table(series: Sequence[Series]) -> pd.DataFrame:
    rows = [
        {"series": line.name, "epsilon": epsilon, "value": value, "low": low, "high": high}
        for line in series
        for epsilon, value, low, high in [
            *line.points[["epsilon", "value", "low", "high"]].to_numpy(float).tolist(),
            *([(float("inf"), *_levels(line.reference))] if line.reference else []),
        ]
    ]
    return pd.DataFrame(rows)
