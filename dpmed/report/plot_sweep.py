"""AUROC against epsilon: one line a series, single runs as open dots, runs without DP as a band.

Must not average: it draws the means it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dpmed.report.figures import Figure
from dpmed.report.svg import NUM_SERIES, Drawing, Frame, linear, logarithmic, nice_ticks

_WIDTH, _HEIGHT, _LEFT, _TOP = 400.0, 270.0, 36.0, 26.0


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line.

    Attributes:
        points: rows of epsilon, value, low, high; epsilon ascending; low and high may be missing.
        reference: value, low, high without DP; None where there is no such run.
        dots: (epsilon, value) of single runs.
    """

    name: str
    points: pd.DataFrame
    reference: tuple[float, float | None, float | None] | None = None
    dots: Sequence[tuple[float, float]] = ()


def epsilon_auroc_figure(series: Sequence[Series], *, name: str, title: str) -> Figure:
    """The lines of all series on a logarithmic epsilon axis.

    Args:
        series: with at least one point between them.
        name: file name without ending.
        title: words above the vertical axis.
    """
    legend = 14 * len(series) + 8
    drawing = Drawing(
        width=_WIDTH, height=_HEIGHT + legend, label=f"{title} against epsilon, {len(series)} lines"
    )
    frame = _frame(drawing, series)
    frame.x_axis(_epsilon_ticks(series), "Epsilon (log scale; smaller is more private)")
    low, high = _extent(series)
    frame.y_axis([(tick, f"{tick:g}") for tick in nice_ticks(low, high, 5)], title)
    for index, line in enumerate(series):
        css = f"s{index % NUM_SERIES + 1}"
        _draw_reference(frame, line, css)
        _draw_line(frame, line, css, shift=3.0 * (index - (len(series) - 1) / 2))
        row = _HEIGHT + 14 * index + 10
        drawing.line((_LEFT, row - 4), (_LEFT + 20, row - 4), f"curve {css}")
        drawing.text((_LEFT + 26, row), line.name, "note")
    return Figure(name=name, drawing=drawing, data=_table(series))


def _frame(drawing: Drawing, series: Sequence[Series]) -> Frame:
    epsilons = [float(value) for line in series for value in line.points["epsilon"]]
    bottom, right = _HEIGHT - 40, _WIDTH - 12
    return Frame(
        drawing=drawing,
        left=_LEFT,
        right=right,
        top=_TOP,
        bottom=bottom,
        x=logarithmic((min(epsilons) / 1.3, max(epsilons) * 1.3), (_LEFT, right)),
        y=linear(_extent(series), (bottom, _TOP)),
    )


def _extent(series: Sequence[Series]) -> tuple[float, float]:
    values: list[float] = []
    for line in series:
        values += [float(v) for v in line.points[["value", "low", "high"]].to_numpy().ravel()]
        values += [float(v) for v in line.reference or () if v is not None]
        values += [value for _, value in line.dots]
    known = [value for value in values if value == value]
    low, high = min(known), max(known)
    margin = max(0.01, 0.08 * (high - low))
    return max(0.0, low - margin), min(1.0, high + margin)


def _epsilon_ticks(series: Sequence[Series]) -> list[tuple[float, str]]:
    epsilons = sorted({float(value) for line in series for value in line.points["epsilon"]})
    step = max(1, -(-len(epsilons) // 7))
    return [(value, f"{value:g}") for value in epsilons[::step]]


def _draw_reference(frame: Frame, line: Series, css: str) -> None:
    if line.reference is None:
        return
    value, low, high = line.reference
    left, right = frame.left, frame.right
    if low is not None and high is not None:
        corners = [(left, frame.y(low)), (right, frame.y(low)),
                   (right, frame.y(high)), (left, frame.y(high))]  # fmt: skip
        frame.drawing.polygon(corners, f"band {css}")
    frame.drawing.line((left, frame.y(value)), (right, frame.y(value)), f"curve thin {css}")
    words = f"without DP {value:.3f}"
    frame.drawing.text((right - 3, frame.y(value) - 4), words, "note", "end")


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
    parts = []
    for line in series:
        rows = line.points[["epsilon", "value", "low", "high"]].assign(series=line.name)
        if line.reference is not None:
            value, low, high = line.reference
            last = pd.DataFrame(
                [{"epsilon": "inf", "value": value, "low": low, "high": high, "series": line.name}]
            )
            rows = pd.concat([rows.astype(object), last.astype(object)])
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)[["series", "epsilon", "value", "low", "high"]]
