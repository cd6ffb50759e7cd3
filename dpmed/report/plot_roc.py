"""ROC curves of one label: all images, and one curve per subgroup to lay over it.

Curves come from the predictions; the AUROC printed in the corner comes from `metrics.json`, so that
no number is computed twice. Must not estimate an uncertainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from dpmed.report.figures import Figure
from dpmed.report.numbers import Estimate, age_bounds, group_name, label_name, slug
from dpmed.report.svg import NUM_SERIES, Drawing, Frame, linear

_SIZE = 260.0


def roc_figure(
    predictions: pd.DataFrame,
    label: str,
    *,
    auroc: Estimate,
    groups: Mapping[str, Sequence[str]],
) -> Figure | None:
    """The ROC curve of a label; None without positives, negatives or finite scores.

    Args:
        predictions: table with `label_<label>`, `prob_<label>` and the attributes.
        label: which label to draw.
        auroc: printed in the corner.
        groups: attribute to the names of its groups; a group without a curve is left out.
    """
    overall = _points(predictions, label)
    if overall is None:
        return None
    curves = [("all", "all", _thin(overall))]
    for attribute, names in groups.items():
        for name in names:
            members = predictions[_members(predictions, attribute, name)]
            points = _points(members, label)
            if points is not None:
                curves.append((attribute, name, _thin(points, tolerance=0.005)))
    return Figure(
        name=f"roc_{slug(label)}", drawing=_draw(label, auroc, curves), data=_table(label, curves)
    )


def _points(predictions: pd.DataFrame, label: str) -> np.ndarray | None:
    """Rows of (false positive rate, true positive rate, threshold); None where undefined."""
    columns = [f"label_{label}", f"prob_{label}"]
    if not set(columns) <= set(predictions.columns):
        return None
    truth, score = (predictions[name].to_numpy(float, na_value=np.nan) for name in columns)
    known = np.isfinite(truth) & np.isfinite(score)
    truth, score = truth[known], score[known]
    if len(np.unique(truth)) < 2:
        return None
    fpr, tpr, threshold = roc_curve(truth, score)
    return np.column_stack([fpr, tpr, threshold])


def _members(predictions: pd.DataFrame, attribute: str, name: str) -> pd.Series:
    column = attribute if attribute in predictions else attribute.split("_")[0]
    if column not in predictions:
        return pd.Series(False, index=predictions.index)
    bounds = age_bounds(name) if column == "age" else None
    if bounds is not None:
        return (predictions["age"] >= bounds[0]) & (predictions["age"] < bounds[1])
    return predictions[column].astype("string").eq(name).fillna(False).astype(bool)


def _thin(points: np.ndarray, tolerance: float = 0.002) -> np.ndarray:
    """The rows that a line within `tolerance` of the curve needs, both ends kept.

    Source:
        Douglas and Peucker 1973: keep the point farthest from the chord, then look at both parts.
    """
    keep = np.zeros(len(points), dtype=bool)
    keep[[0, -1]] = True
    parts = [(0, len(points) - 1)]
    while parts:
        start, end = parts.pop()
        distance = _distance_to_chord(points[start + 1 : end, :2], points[[start, end], :2])
        if len(distance) and distance.max() > tolerance:
            middle = start + 1 + int(distance.argmax())
            keep[middle] = True
            parts += [(start, middle), (middle, end)]
    return points[keep]


def _distance_to_chord(points: np.ndarray, ends: np.ndarray) -> np.ndarray:
    along = ends[1] - ends[0]
    length = np.hypot(*along)
    offset = points - ends[0]
    return np.abs(along[0] * offset[:, 1] - along[1] * offset[:, 0]) / max(length, 1e-12)


def _draw(label: str, auroc: Estimate, curves: list[tuple[str, str, np.ndarray]]) -> Drawing:
    name = label_name(label)
    drawing = Drawing(width=_SIZE, height=_SIZE, label=f"ROC curve, {name}: AUROC {auroc.text}")
    frame = Frame(
        drawing=drawing, left=30, right=_SIZE - 8, top=22, bottom=_SIZE - 36,
        x=linear((0, 1), (30, _SIZE - 8)), y=linear((0, 1), (_SIZE - 36, 22)),
    )  # fmt: skip
    ticks = [(value, f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)]
    frame.x_axis(ticks, "False positive rate")
    frame.y_axis(ticks, "True positive rate")
    frame.curve([(0, 0), (1, 1)], "reference")
    _draw_groups(frame, curves)
    everyone = curves[0][2]
    frame.curve([(x, y) for x, y, _ in everyone], "curve s1")
    for fpr, tpr, threshold in everyone[:: max(1, len(everyone) // 30)]:
        tip = f"{name}: at threshold {min(threshold, 1):.3f}, finds {tpr:.0%} of cases, "
        place = (frame.x(fpr), frame.y(tpr))
        drawing.circle(place, 6, "hit s1", tip=f"{tip}false alarms in {fpr:.0%} of the others")
    _draw_caption(frame, auroc)
    return drawing


def _draw_groups(frame: Frame, curves: list[tuple[str, str, np.ndarray]]) -> None:
    attributes = dict.fromkeys(attribute for attribute, _, _ in curves[1:])
    for attribute in attributes:
        frame.drawing.open_group("overlay", attribute=attribute)
        members = [curve for curve in curves[1:] if curve[0] == attribute]
        for index, (_, name, points) in enumerate(members):
            series = f"s{index % (NUM_SERIES - 1) + 2}"
            frame.curve([(x, y) for x, y, _ in points], f"curve thin {series}")
            row = frame.top + 14 + 13 * index
            frame.drawing.line((frame.left + 6, row - 4), (frame.left + 24, row - 4),
                               f"curve thin {series}")  # fmt: skip
            frame.drawing.text((frame.left + 28, row), group_name(attribute, name), "note")
        frame.drawing.close_group()


def _draw_caption(frame: Frame, auroc: Estimate) -> None:
    right, bottom = frame.right - 6, frame.bottom
    frame.drawing.text((right, bottom - 34), "AUROC", "note", "end")
    value = "not estimable" if auroc.value is None else f"{auroc.value:.3f}"
    frame.drawing.text((right, bottom - 20), value, "strong", "end")
    frame.drawing.text((right, bottom - 6), auroc.interval, "note", "end")


def _table(label: str, curves: list[tuple[str, str, np.ndarray]]) -> pd.DataFrame:
    parts = [
        pd.DataFrame(points, columns=["fpr", "tpr", "threshold"]).assign(
            label=label, attribute=attribute, group=group
        )
        for attribute, group, points in curves
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[["label", "attribute", "group", "fpr", "tpr", "threshold"]]
