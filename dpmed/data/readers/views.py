"""Rows of the wanted projections only, with a note of what was left out."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dpmed.data.table import add_note
from dpmed.errors import UserError


def keep_views(table: pd.DataFrame, views: Sequence[str] | None, *, source: str) -> pd.DataFrame:
    """The rows whose view is one of these; None keeps every row.

    Raises:
        UserError: no row has such a view.
    """
    if views is None:
        return table
    kept = table["view"].isin(list(views))
    found = table["view"].fillna("unknown")
    if not kept.any():
        raise UserError(
            f"data.views={list(views)} leaves none of the {len(table)} images of {source}. "
            f"Its views are: {', '.join(sorted(found.unique()))}."
        )
    result = table[kept].reset_index(drop=True)
    if not kept.all():
        counts = ", ".join(
            f"{view} {number}" for view, number in found[~kept].value_counts().items()
        )
        add_note(result, f"{int((~kept).sum())} images of other views were left out ({counts})")
    return result
