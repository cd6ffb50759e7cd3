"""Reads a curve of `metrics.json`: lists of one length, or null with a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

_BAND = ("ci_low", "ci_high")


def read_curve(entry: object, *, x: str, y: str, extra: Sequence[str] = ()) -> pd.DataFrame | None:
    """The curve as a table with its band; None where there is none.

    Args:
        entry: the part of `metrics.json`.
        x: name of the horizontal list.
        y: name of the vertical list.
        extra: further lists; missing ones become NaN, like a missing band.

    Raises:
        ValueError: the lists differ in length.
    """
    fields: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {}
    if not all(isinstance(fields.get(name), list) and fields[name] for name in (x, y)):
        return None
    table = pd.DataFrame({x: fields[x], y: fields[y]}, dtype=float)
    for name in (*_BAND, *extra):
        values = fields.get(name)
        table[name] = pd.Series(values, dtype=float) if isinstance(values, list) else float("nan")
    return table
