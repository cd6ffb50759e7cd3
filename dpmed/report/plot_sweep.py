"""AUROC, or another quantity, against epsilon: a line a series, single runs as open dots.

Runs without DP are a band. Must not average: it draws the means it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dpmed.report.figures import Figure
from dpmed.report.svg import NUM_SERIES, Drawing, Frame, linear, logarithmic, nice_ticks

_WIDTH, _HEIGHT, _LEFT, _TOP = 400.0, 270.0, 36.0, 26.0


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
        width=_WIDTH, height=_HEIGHT + legend, label=f"{title} against epsilon, {len(series)} lines"
    )
    extent = _extent(series, limits)
    frame = _frame(drawing, series, extent)
    frame.x_axis(_epsilon_ticks(series), "Epsilon (log scale; smaller is more private)")
    frame.y_axis([(tick, f"{tick:g}") for tick in nice_ticks(*extent, 5)], title)
    _draw_references(frame, series)
    for index, line in enumerate(series):
        css = f"s{index % NUM_SERIES + 1}"
        _draw_line(frame, line, css, shift=3.0 * (index - (len(series) - 1) / 2))
        row = _HEIGHT + 14 * index + 10
        drawing.line((_LEFT, row - 4), (_LEFT + 20, row - 4), f"curve {css}")
        drawing.text((_LEFT + 26, row), line.name, "note")
    return Figure(name=name, drawing=drawing, data=_table(series))


def _frame(drawing: Drawing, series: Sequence[Series], extent: tuple[float, float]) -> Frame:
    epsilons = [float(value) for line in series for value in line.points["epsilon"]]
    bottom, right = _HEIGHT - 40, _WIDTH - 12
    return Frame(
        drawing=drawing,
        left=_LEFT,
        right=right,
        top=_TOP,
        bottom=bottom,
        x=logarithmic((min(epsilons) / 1.3, max(epsilons) * 1.3), (_LEFT, right)),
        y=linear(extent, (bottom, _TOP)),
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


def _draw_references(frame: Frame, series: Sequence[Series]) -> None:
    """Bands over the whole width, with their words on the right."""
    words: list[tuple[float, str]] = []
    for index, line in enumerate(series):
        if line.reference is None:
            continue
        css, left, right = f"s{index % NUM_SERIES + 1}", frame.left, frame.right
        value, low, high = (frame.y(level) for level in _levels(line.reference))
        frame.drawing.polygon(
            [(left, low), (right, low), (right, high), (left, high)], f"band {css}"
        )
        frame.drawing.line((left, value), (right, value), f"curve thin {css}")
        which = f", {line.name}" if len(series) > 1 else ""
        words.append((value - 4, f"no DP{which}: {line.reference.value:.3f}"))
    for at, text in _apart(sorted(words), distance=13):
        frame.drawing.text((frame.right - 3, at), text, "note", "end")


def _levels(reference: Reference) -> tuple[float, float, float]:
    has_interval = reference.low == reference.low and reference.high == reference.high
    if has_interval:
        return reference.value, reference.low, reference.high
    return reference.value, reference.value, reference.value


def _apart(words: list[tuple[float, str]], distance: float) -> list[tuple[float, str]]:
    """Pushes words down until each is `distance` pixels below the one above."""
    placed: list[tuple[float, str]] = []
    for at, text in words:
        lowest = placed[-1][0] + distance if placed else at
        placed.append((max(at, lowest), text))
    return placed


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
