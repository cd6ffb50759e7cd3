"""Epsilon over logical steps: what was planned, and how far the run went.

The curve is a function of the steps alone, so it shows nothing of the data.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dpmed.report.figures import Figure
from dpmed.report.svg import Frame, nice_ticks, small_frame


def epsilon_figure(
    points: Sequence[tuple[float, float]], *, target: float, steps_done: int | None
) -> Figure:
    """Epsilon spent after each number of steps.

    Args:
        points: (steps, epsilon), ascending, at least two.
        target: the planned epsilon, drawn as a dashed line.
        steps_done: where the run stands; None where unknown.
    """
    last_step = points[-1][0]
    top = max(target, points[-1][1]) * 1.08
    label = f"Epsilon after each step, ending at {points[-1][1]:.3g} of {target:.3g} allowed"
    frame = small_frame(label, x=(0, last_step), y=(0, top))
    frame.x_axis([(tick, f"{tick:,g}") for tick in nice_ticks(0, last_step, 4)], "Logical steps")
    frame.y_axis([(tick, f"{tick:g}") for tick in nice_ticks(0, top, 4)], "Epsilon spent")
    frame.curve([(0, target), (last_step, target)], "reference")
    note = f"target {target:g}"
    frame.drawing.text((frame.right, frame.y(target) - 4), note, "note", "end")
    frame.curve([(0.0, 0.0), *points] if points[0][0] > 0 else points, "curve s1")
    for steps, epsilon in points:
        place = (frame.x(steps), frame.y(epsilon))
        frame.drawing.circle(
            place, 6, "hit s1", tip=f"after {steps:,g} steps: epsilon {epsilon:.3g}"
        )
    _mark_end(frame, points, steps_done)
    return Figure(
        name="epsilon_over_steps",
        drawing=frame.drawing,
        data=pd.DataFrame(points, columns=["num_steps", "epsilon"]),
    )


def _mark_end(frame: Frame, points: Sequence[tuple[float, float]], steps_done: int | None) -> None:
    reached = points[-1]
    if steps_done is not None:
        reached = min(points, key=lambda point: abs(point[0] - steps_done))
    place = (frame.x(reached[0]), frame.y(reached[1]))
    frame.drawing.circle(place, 4.5, "dot s1", tip=f"this run: epsilon {reached[1]:.3g}")
