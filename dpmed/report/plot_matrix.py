"""A matrix of AUROCs as a heat map: runs down, sites across, each number in its cell.

The shade repeats the number and carries nothing of its own. Must not estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from dpmed.report.figures import Figure
from dpmed.report.numbers import Estimate, decimal
from dpmed.report.svg import Drawing

_CELL, _ROW, _TOP = 76.0, 34.0, 34.0
_MAX_NAME, _LETTER = 32, 6.2  # letters, and pixels a letter


def matrix_figure(
    cells: Mapping[tuple[str, str], Estimate],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    name: str,
    title: str,
) -> Figure:
    """The heat map.

    Args:
        cells: estimate by (row, column); a missing one is drawn as a dash.
        rows: names from top to bottom.
        columns: names from left to right.
        name: file name without ending.
        title: what the numbers are.
    """
    margin = 14 + _LETTER * max((len(_short(row)) for row in rows), default=0)
    width, height = margin + _CELL * len(columns) + 8, _TOP + _ROW * len(rows) + 8
    drawing = Drawing(width=width, height=height, label=f"{title}: runs down, sites across")
    drawing.text((0, 12), title, "title")
    known = [item.value for item in cells.values() if item.value is not None]
    for index, column in enumerate(columns):
        drawing.text((margin + _CELL * (index + 0.5), _TOP - 6), _short(column), "tick", "middle")
    for down, row in enumerate(rows):
        middle = _TOP + _ROW * (down + 0.5)
        drawing.text((0, middle + 4), _short(row), "")
        for across, column in enumerate(columns):
            left = margin + _CELL * across
            _draw_cell(drawing, cells.get((row, column)), (left, middle), known, f"{row}, {column}")
    return Figure(name=name, drawing=drawing, data=_table(cells))


def _draw_cell(
    drawing: Drawing,
    item: Estimate | None,
    place: tuple[float, float],
    known: Sequence[float],
    where: str,
) -> None:
    left, middle = place
    centre = left + _CELL / 2
    if item is None or item.value is None:
        drawing.text((centre, middle + 4), "–", "note", "middle")
        return
    low, high = min(known), max(known)
    share = (item.value - low) / (high - low) if high > low else 0.5
    corners = [
        (left + 1, middle - _ROW / 2 + 1),
        (left + _CELL - 1, middle - _ROW / 2 + 1),
        (left + _CELL - 1, middle + _ROW / 2 - 1),
        (left + 1, middle + _ROW / 2 - 1),
    ]
    drawing.polygon(corners, f"shade shade{round(5 * share)}")
    drawing.text((centre, middle + 1), decimal(item.value), "strong", "middle")
    drawing.text((centre, middle + 12), item.interval, "fineprint", "middle")
    drawing.circle((centre, middle), _ROW / 2, "cover", tip=f"{where}: {item.text} {item.counts}")


def _short(name: str) -> str:
    """The end of a long name, where names of one sweep differ."""
    return name if len(name) <= _MAX_NAME else f"…{name[1 - _MAX_NAME :]}"


def _table(cells: Mapping[tuple[str, str], Estimate]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"run": row, "site": column, "value": item.value, "low": item.low, "high": item.high,
             "num_positive": item.num_positive, "num_negative": item.num_negative}
            for (row, column), item in cells.items()
        ]
    )  # fmt: skip
