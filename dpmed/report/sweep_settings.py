"""AUROC against a swept setting: the share of the data, the size of the model, or any number.

One plot a setting that has several values, a line for each epsilon (and each value of the other
settings). A model's size is its number of parameters. Must not average: it draws the given means.
"""

from __future__ import annotations

import pandas as pd

from dpmed.report.figures import Figure
from dpmed.report.numbers import epsilon_words, setting_name, slug
from dpmed.report.plot_sweep import HEIGHT, LEFT, TOP, WIDTH, legend_entry
from dpmed.report.svg import NUM_SERIES, Drawing, Frame, Scale, linear, logarithmic, nice_ticks
from dpmed.report.sweep_means import MACRO
from dpmed.report.sweep_runs import Sweep

MODEL = "model.name"


def setting_figures(sweep: Sweep, means: pd.DataFrame) -> list[Figure]:
    """The plots; none where no setting with a number behind its values was swept.

    Args:
        sweep: the runs.
        means: the conditions, a dot each, with their intervals.
    """
    shown = means[means[MACRO].notna()]
    figures = []
    for setting in sweep.varying:
        places = _places(sweep, setting)
        if places is None or shown[setting].map(places).nunique() < 2:
            continue
        lines = _lines(shown, setting, places, [name for name in sweep.varying if name != setting])
        figures.append(_figure(lines, setting, is_log=min(places.values()) > 0))
    return figures


def _places(sweep: Sweep, setting: str) -> dict[str, float] | None:
    """Where each value stands on the axis; None for a setting without numbers."""
    values = sweep.runs[setting].astype(str)
    if setting == MODEL:
        sizes = pd.to_numeric(sweep.runs["num_parameters"], errors="coerce")
    else:
        sizes = pd.to_numeric(values, errors="coerce")
    if sizes.isna().any():
        return None
    return dict(zip(values, sizes.astype(float), strict=True))


def _lines(
    means: pd.DataFrame, setting: str, places: dict[str, float], others: list[str]
) -> dict[str, pd.DataFrame]:
    """Name of a line -> its points: place, value, low, high and what the setting is there."""
    lines = {}
    for _, rows in means.groupby(["epsilon", *others], dropna=False, sort=True):
        epsilon, *rest = rows[["epsilon", *others]].iloc[0]
        named = [f"{_leaf(other)} {value}" for other, value in zip(others, rest, strict=True)]
        name = ", ".join([epsilon_words(epsilon), *named])
        points = pd.DataFrame(
            {
                "place": rows[setting].astype(str).map(places),
                "setting": rows[setting].astype(str),
                "value": rows[MACRO].astype(float),
                "low": rows[f"{MACRO}.low"].astype(float),
                "high": rows[f"{MACRO}.high"].astype(float),
            }
        )
        lines[name] = points.sort_values("place", ignore_index=True)
    return lines


def _figure(lines: dict[str, pd.DataFrame], setting: str, *, is_log: bool) -> Figure:
    everything = pd.concat(lines.values())
    drawing = Drawing(
        width=WIDTH,
        height=HEIGHT + 14 * len(lines) + 8,
        label=f"AUROC against {setting}, {len(lines)} lines",
    )
    low, high = _extent(everything)
    frame = Frame(
        drawing=drawing,
        left=LEFT,
        right=WIDTH - 12,
        top=TOP,
        bottom=HEIGHT - 40,
        x=_scale(everything["place"], is_log=is_log),
        y=linear((low, high), (HEIGHT - 40, TOP)),
    )
    what = "Parameters of the model" if setting == MODEL else setting_name(_leaf(setting))
    frame.x_axis(_ticks(everything["place"]), f"{what}{' (log scale)' if is_log else ''}")
    frame.y_axis(
        [(tick, f"{tick:g}") for tick in nice_ticks(low, high, 5)], "AUROC, mean over labels"
    )
    for index, (name, points) in enumerate(lines.items()):
        css = f"s{index % NUM_SERIES + 1}"
        _draw(frame, name, points, css)
        legend_entry(drawing, index, name, css)
    data = pd.concat([points.assign(series=name) for name, points in lines.items()])
    return Figure(name=f"auroc_{slug(setting)}", drawing=drawing, data=data)


def _draw(frame: Frame, name: str, points: pd.DataFrame, css: str) -> None:
    rows = points[["place", "value", "low", "high"]].to_numpy(float)
    drawing = frame.drawing
    drawing.polyline(
        [(frame.x(place), frame.y(value)) for place, value, _, _ in rows], f"curve {css}"
    )
    for (place, value, low, high), setting in zip(rows, points["setting"], strict=True):
        interval = ""
        if low == low and high == high:
            drawing.line(
                (frame.x(place), frame.y(low)), (frame.x(place), frame.y(high)), f"bar {css}"
            )
            interval = f" ({low:.3f}–{high:.3f})"
        tip = f"{name}, {setting}: {value:.3f}{interval}"
        drawing.circle((frame.x(place), frame.y(value)), 4, f"dot {css}", tip=tip)


def _scale(places: pd.Series, *, is_log: bool) -> Scale:
    low, high = float(places.min()), float(places.max())
    ends = (LEFT, WIDTH - 12)
    if is_log:
        return logarithmic((low / 1.2, high * 1.2), ends)
    margin = 0.05 * (high - low)
    return linear((low - margin, high + margin), ends)


def _ticks(places: pd.Series) -> list[tuple[float, str]]:
    return [(place, _short(place)) for place in sorted(places.unique())]


def _short(number: float) -> str:
    """3,371,205 as 3.4 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:g}"


def _extent(points: pd.DataFrame) -> tuple[float, float]:
    values = points[["value", "low", "high"]].to_numpy(float)
    low, high = float(pd.Series(values.ravel()).min()), float(pd.Series(values.ravel()).max())
    margin = max(0.01, 0.08 * (high - low))
    return max(0.0, low - margin), min(1.0, high + margin)


def _leaf(setting: str) -> str:
    return setting.removesuffix(".source").removesuffix(".name").split(".")[-1]
