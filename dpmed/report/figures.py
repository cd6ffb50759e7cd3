"""A figure: one drawing, the numbers behind it, and both written as files beside the page.

Stands between the plots and the page. Must not know what is plotted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dpmed.report.svg import Drawing


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing and its data.

    Attributes:
        name: file name without ending.
        drawing: what is shown.
        data: the plotted numbers, one row a mark.
    """

    name: str
    drawing: Drawing
    data: pd.DataFrame


def write_figures(figures: Iterable[Figure], folder: Path) -> None:
    """Writes `<name>.svg` and `<name>.csv` of every figure, and removes those of an earlier build.

    Args:
        figures: figures with distinct names.
        folder: created where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (*folder.glob("*.svg"), *folder.glob("*.csv")):
        stale.unlink()
    for figure in figures:
        (folder / f"{figure.name}.svg").write_text(figure.drawing.standalone(), encoding="utf-8")
        figure.data.to_csv(folder / f"{figure.name}.csv", index=False)
