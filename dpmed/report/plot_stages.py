"""The geometry along the network: one small plot a metric, a dot a stage.

Must not estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dpmed.report.figures import Figure
from dpmed.report.numbers import Estimate, estimate
from dpmed.report.svg import nice_ticks, small_frame

# Title of the plot, and the metric of each line with its words.
_PLOTS = {
    "stages_displacement": ("Displacement", {"displacement": "after training"}),
    "stages_linear_cka": ("Linear CKA to the start", {"linear_cka": "after training"}),
    "stages_effective_dimension": (
        "Effective dimension",
        {"effective_dimension": "after training", "initial_effective_dimension": "at the start"},
    ),
}


def stage_figures(stages: Mapping[str, Any]) -> list[Figure]:
    """One plot a metric over the stages in the order of the file; none where there are none."""
    figures = []
    for name, (title, lines) in _PLOTS.items():
        series = {
            words: [estimate(fields.get(metric)) for fields in stages.values()]
            for metric, words in lines.items()
        }
        if any(item.value is not None for items in series.values() for item in items):
            figures.append(_figure(name, title, list(stages), series))
    return figures


def _figure(
    name: str, title: str, stages: Sequence[str], series: Mapping[str, Sequence[Estimate]]
) -> Figure:
    ends = [
        end
        for items in series.values()
        for item in items
        for end in (item.value, item.low, item.high)
        if end is not None
    ]
    low, high = min(0.0, *ends), max(ends) * 1.06 or 1.0
    frame = small_frame(f"{title} by stage", x=(0.6, len(stages) + 0.4), y=(low, high))
    ticks = [(index + 1.0, str(index + 1)) for index in range(len(stages))]
    frame.x_axis(ticks, "Stage of the network")
    frame.y_axis([(tick, f"{tick:g}") for tick in nice_ticks(low, high, 4)], title)
    rows = []
    for number, (words, items) in enumerate(series.items()):
        css, shift = f"s{number + 1}", 3.0 * number
        known = [(at + 1.0, item) for at, item in enumerate(items) if item.value is not None]
        places = [(frame.x(at) + shift, frame.y(item.value or 0.0)) for at, item in known]
        frame.drawing.polyline(places, f"curve thin {css}")
        for (x, y), (at, item) in zip(places, known, strict=True):
            if item.low is not None and item.high is not None:
                frame.drawing.line((x, frame.y(item.low)), (x, frame.y(item.high)), f"bar {css}")
            tip = f"stage {at:g}, {words}: {item.text}"
            frame.drawing.circle((x, y), 3.5, f"dot {css}", tip=tip)
            rows.append(_record(stages[int(at) - 1], words, item))
        if len(series) > 1:
            row = frame.top + 10 + 13 * number
            frame.drawing.line((frame.left + 6, row - 4), (frame.left + 22, row - 4), f"bar {css}")
            frame.drawing.text((frame.left + 26, row), words, "note")
    return Figure(name=name, drawing=frame.drawing, data=pd.DataFrame(rows))


def _record(stage: str, words: str, item: Estimate) -> dict[str, Any]:
    return {
        "stage": stage,
        "encoder": words,
        "value": item.value,
        "ci_low": item.low,
        "ci_high": item.high,
    }
