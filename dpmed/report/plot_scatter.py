"""Two quantities of many runs against each other: a dot a run, a colour a group of runs.

Must not estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dpmed.report.figures import Figure
from dpmed.report.svg import NUM_SERIES, SMALL, Drawing, Frame, linear, nice_ticks


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Runs of one colour: (x, y, words of the tooltip)."""

    name: str
    points: Sequence[tuple[float, float, str]]


def scatter_figure(clouds: Sequence[Cloud], *, name: str, titles: tuple[str, str]) -> Figure:
    """The dots with a legend below.

    Args:
        clouds: with at least one point between them.
        name: file name without ending.
        titles: of the horizontal and of the vertical axis.
    """
    drawing = Drawing(
        width=SMALL,
        height=SMALL + 14 * len(clouds) + 10,
        label=f"{titles[1]} against {titles[0]}, one dot a run",
    )
    points = [point for cloud in clouds for point in cloud.points]
    ranges = _range([x for x, _, _ in points]), _range([y for _, y, _ in points])
    left, right, top, bottom = 38.0, SMALL - 8, 22.0, SMALL - 36
    frame = Frame(
        drawing=drawing, left=left, right=right, top=top, bottom=bottom,
        x=linear(ranges[0], (left, right)), y=linear(ranges[1], (bottom, top)),
    )  # fmt: skip
    frame.x_axis([(tick, f"{tick:g}") for tick in nice_ticks(*ranges[0], 4)], titles[0])
    frame.y_axis([(tick, f"{tick:g}") for tick in nice_ticks(*ranges[1], 4)], titles[1])
    for index, cloud in enumerate(clouds):
        css = f"s{index % NUM_SERIES + 1}"
        mark = drawing.square if index % 2 else drawing.circle
        for x, y, words in cloud.points:
            tip = f"{words}: {titles[0].lower()} {x:.3g}, {titles[1].lower()} {y:.3f}"
            mark((frame.x(x), frame.y(y)), 3.5, f"dot {css}", tip=tip)
        row = SMALL + 14 * index + 14
        mark((left + 6, row - 4), 3.5, f"dot {css}")
        drawing.text((left + 16, row), cloud.name, "note")
    rows = [
        {"group": cloud.name, "run": words, "x": x, "y": y}
        for cloud in clouds
        for x, y, words in cloud.points
    ]
    return Figure(name=name, drawing=drawing, data=pd.DataFrame(rows))


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.01
    return low - margin, high + margin
