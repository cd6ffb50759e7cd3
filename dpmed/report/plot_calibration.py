"""Reliability of one label: observed frequency against predicted probability, with its band.

All numbers come from `metrics.json`. Must not bin or estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dpmed.report.curves import read_curve
from dpmed.report.figures import Figure
from dpmed.report.numbers import Estimate, label_name, slug
from dpmed.report.svg import UNIT_TICKS, Frame, small_frame


def reliability_figure(entry: Mapping[str, Any], label: str, *, ece: Estimate) -> Figure | None:
    """The reliability curve of a label; None where `metrics.json` has none.

    Args:
        entry: `predicted`, `observed`, `ci_low`, `ci_high`, `num_images`.
        label: which label it is.
        ece: expected calibration error, printed in the corner.
    """
    table = read_curve(entry, x="predicted", y="observed", extra=("num_images",))
    if table is None:
        return None
    name = label_name(label)
    frame = small_frame(f"Reliability, {name}: ECE {ece.text}", x=(0, 1), y=(0, 1))
    frame.x_axis(UNIT_TICKS, "Predicted probability")
    frame.y_axis(UNIT_TICKS, "Observed frequency")
    frame.curve([(0, 0), (1, 1)], "reference")
    _draw(frame, table)
    for row, (words, css) in enumerate([("ECE", "note"), (ece.value_text, "strong")]):
        frame.drawing.text((34, 36 + 14 * row), words, css)
    frame.drawing.text((34, 64), ece.interval, "note")
    return Figure(name=f"reliability_{slug(label)}", drawing=frame.drawing, data=table)


def _draw(frame: Frame, table: pd.DataFrame) -> None:
    columns = ["predicted", "observed", "ci_low", "ci_high", "num_images"]
    rows = table[columns].to_numpy(float)
    frame.curve([(predicted, observed) for predicted, observed, *_ in rows], "curve s1 thin")
    for predicted, observed, low, high, num_images in rows:
        x, y = frame.x(predicted), frame.y(observed)
        interval = ""
        if low == low and high == high:
            frame.drawing.line((x, frame.y(low)), (x, frame.y(high)), "bar s1")
            interval = f" ({low:.2f}–{high:.2f})"
        count = "" if num_images != num_images else f", {num_images:,.0f} images"
        tip = f"predicted {predicted:.2f}, observed {observed:.2f}{interval}{count}"
        frame.drawing.circle((x, y), 3.5, "dot s1", tip=tip)
