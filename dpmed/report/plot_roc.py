"""ROC curves of one label: all images with their band, and one curve per subgroup to lay over it.

The curve over all images, its band and the AUROC in the corner come from `metrics.json`; the
groups' curves, which that file does not hold, come from the predictions and carry no number. Must
not estimate an uncertainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from dpmed.report.curves import read_curve
from dpmed.report.figures import Figure
from dpmed.report.numbers import Estimate, age_bounds, group_name, label_name, slug
from dpmed.report.svg import NUM_SERIES, UNIT_TICKS, Drawing, Frame, small_frame

_COLUMNS = ["fpr", "tpr", "ci_low", "ci_high"]


@dataclass(frozen=True, kw_only=True)
class RocInput:
    """What `metrics.json` says about one label.

    Attributes:
        curve: entry of `roc`; empty where there is none, and the predictions are used.
        auroc: printed in the corner.
        operating_point: (FPR, TPR) at the frozen threshold; None where there is none.
    """

    label: str
    curve: Mapping[str, object]
    auroc: Estimate
    operating_point: tuple[float, float] | None


def roc_figure(
    roc: RocInput, *, predictions: pd.DataFrame, groups: Mapping[str, Sequence[str]]
) -> Figure | None:
    """The ROC curve of a label; None without positives, negatives or finite scores.

    Args:
        roc: what is known of the label.
        predictions: `label_<label>`, `prob_<label>` and the attributes; may be empty.
        groups: attribute to the names of its groups; a group without a curve is left out.
    """
    overall = read_curve(roc.curve, x="fpr", y="tpr")
    if overall is None:
        overall = _curve(predictions, roc.label, tolerance=0.002)
    if overall is None:
        return None
    curves = [("all", "all", overall)]
    for attribute, names in groups.items():
        for name in names:
            members = predictions[_members(predictions, attribute, name)]
            points = _curve(members, roc.label, tolerance=0.005)
            if points is not None:
                curves.append((attribute, name, points))
    table = _table(roc.label, curves)
    return Figure(name=f"roc_{slug(roc.label)}", drawing=_draw(roc, curves), data=table)


def _curve(predictions: pd.DataFrame, label: str, *, tolerance: float) -> pd.DataFrame | None:
    """The curve of these rows, without a band; None where it is undefined."""
    columns = [f"label_{label}", f"prob_{label}"]
    if not set(columns) <= set(predictions.columns):
        return None
    truth, score = (predictions[name].to_numpy(float, na_value=np.nan) for name in columns)
    known = np.isfinite(truth) & np.isfinite(score)
    if len(np.unique(truth[known])) < 2:
        return None
    fpr, tpr, _ = roc_curve(truth[known], score[known])
    points = _thin(np.column_stack([fpr, tpr]), tolerance)
    return pd.DataFrame(points, columns=["fpr", "tpr"]).assign(ci_low=np.nan, ci_high=np.nan)


def _members(predictions: pd.DataFrame, attribute: str, name: str) -> pd.Series:
    column = attribute if attribute in predictions else attribute.split("_")[0]
    if column not in predictions:
        return pd.Series(False, index=predictions.index)
    bounds = age_bounds(name) if column == "age" else None
    if bounds is not None:
        return (predictions["age"] >= bounds[0]) & (predictions["age"] < bounds[1])
    return predictions[column].astype("string").eq(name).fillna(False).astype(bool)


def _thin(points: np.ndarray, tolerance: float) -> np.ndarray:
    """The rows that a line within `tolerance` of the curve needs, both ends kept.

    Source:
        Douglas and Peucker 1973: keep the point farthest from the chord, then look at both parts.
    """
    keep = np.zeros(len(points), dtype=bool)
    keep[[0, -1]] = True
    parts = [(0, len(points) - 1)]
    while parts:
        start, end = parts.pop()
        distance = _distance_to_chord(points[start + 1 : end], points[[start, end]])
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


def _draw(roc: RocInput, curves: list[tuple[str, str, pd.DataFrame]]) -> Drawing:
    name = label_name(roc.label)
    label = f"ROC curve, {name}: AUROC {roc.auroc.text}"
    frame = small_frame(label, x=(0, 1), y=(0, 1))
    frame.x_axis(UNIT_TICKS, "False positive rate")
    frame.y_axis(UNIT_TICKS, "True positive rate")
    frame.curve([(0, 0), (1, 1)], "reference")
    _draw_everybody(frame, name, curves[0][2])
    _draw_groups(frame, curves)
    _draw_operating_point(frame, roc)
    _draw_caption(frame, roc.auroc)
    return frame.drawing


def _draw_everybody(frame: Frame, name: str, curve: pd.DataFrame) -> None:
    rows = curve[_COLUMNS].to_numpy(float)
    banded = rows[np.isfinite(rows).all(axis=1)]
    if len(banded):
        lower = [(fpr, low) for fpr, _, low, _ in banded]
        upper = [(fpr, high) for fpr, _, _, high in banded]
        frame.band(lower, upper, "band s1")
    frame.curve([(fpr, tpr) for fpr, tpr, *_ in rows], "curve s1")
    for fpr, tpr, low, high in rows[:: max(1, len(rows) // 30)]:
        interval = f" (95 % band {low:.0%}–{high:.0%})" if np.isfinite(low + high) else ""
        tip = f"{name}: finds {tpr:.0%} of cases{interval}, flags {fpr:.0%} of the others"
        frame.drawing.circle((frame.x(fpr), frame.y(tpr)), 6, "hit s1", tip=tip)


def _draw_operating_point(frame: Frame, roc: RocInput) -> None:
    if roc.operating_point is None:
        return
    fpr, tpr = roc.operating_point
    tip = f"at the threshold chosen on validation: finds {tpr:.0%}, flags {fpr:.0%} of the others"
    frame.drawing.circle((frame.x(fpr), frame.y(tpr)), 4, "open s1", tip=tip)


def _draw_groups(frame: Frame, curves: list[tuple[str, str, pd.DataFrame]]) -> None:
    attributes = dict.fromkeys(attribute for attribute, _, _ in curves[1:])
    for attribute in attributes:
        frame.drawing.open_group("overlay", attribute=attribute)
        members = [curve for curve in curves[1:] if curve[0] == attribute]
        for index, (_, name, points) in enumerate(members):
            series = f"s{index % (NUM_SERIES - 1) + 2}"
            rows = points[["fpr", "tpr"]].to_numpy(float)
            frame.curve([(fpr, tpr) for fpr, tpr in rows], f"curve thin {series}")
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


def _table(label: str, curves: list[tuple[str, str, pd.DataFrame]]) -> pd.DataFrame:
    parts = [
        points.assign(label=label, attribute=attribute, group=group)
        for attribute, group, points in curves
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[["label", "attribute", "group", *_COLUMNS]]
