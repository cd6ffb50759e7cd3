"""Paired differences as one picture: a row a label or group, around zero.

Stands beside the table cells of the page, which carry the same bars. Must not estimate.
"""

from __future__ import annotations

from dpmed.report.figures import Figure
from dpmed.report.paired import Differences
from dpmed.report.plot_intervals import IntervalRow, interval_figure


def difference_figure(differences: Differences, *, name: str) -> Figure:
    """The rows of a comparison on a scale that holds zero in its middle.

    Args:
        differences: candidate minus reference.
        name: file name without ending.
    """
    rows = [
        IntervalRow(name=row.name, estimate=row.estimate, heading=title)
        for title, block in differences.rows
        for row in block
    ]
    title = f"AUROC, {differences.candidate} minus {differences.reference}"
    return interval_figure(rows, name=name, title=title, reference=0.0, scale=differences.scale)
