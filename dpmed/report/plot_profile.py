"""The plan's privacy profile as two pictures: delta over epsilon, and the strongest attack's ROC.

Both follow from the plan alone and show nothing of the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from dpmed.report.figures import Figure
from dpmed.report.numbers import scientific
from dpmed.report.svg import UNIT_TICKS, nice_ticks, small_frame

_LEFT = 38.0  # room for powers of ten


def profile_figure(
    profile: Sequence[tuple[float, float]], *, epsilon: float, delta: float
) -> Figure:
    """Delta for every epsilon, with the pair that the statement quotes.

    Args:
        profile: (epsilon, delta), ascending in epsilon, delta positive.
        epsilon: of the quoted pair.
        delta: of the quoted pair.
    """
    highest = max(value for _, value in profile)
    lowest = min(value for _, value in profile)
    words = "Delta for every epsilon, log scale"
    frame = small_frame(words, x=(0, profile[-1][0]), y=(lowest, highest), left=_LEFT, log_y=True)
    ticks = [(tick, f"{tick:g}") for tick in nice_ticks(0, profile[-1][0], 4)]
    frame.x_axis(ticks, "Epsilon")
    powers = range(math.ceil(math.log10(lowest)), math.floor(math.log10(highest)) + 1)
    frame.y_axis([(10.0**power, scientific(10.0**power)) for power in powers[::2]], "Delta")
    frame.curve(profile, "curve s1")
    for at, value in profile[::4]:
        tip = f"epsilon {at:.2f}: delta {scientific(value)}"
        frame.drawing.circle((frame.x(at), frame.y(value)), 6, "hit s1", tip=tip)
    quoted = (frame.x(epsilon), frame.y(delta))
    frame.drawing.circle(quoted, 4.5, "dot s1", tip=f"quoted: {epsilon:.3g} at {scientific(delta)}")
    table = pd.DataFrame(profile, columns=["epsilon", "delta"])
    return Figure(name="privacy_profile", drawing=frame.drawing, data=table)


def attack_figure(curve: Sequence[tuple[float, float]]) -> Figure:
    """The ROC curve that no attack can rise above.

    Args:
        curve: (FPR, TPR) from 0 to 1.
    """
    frame = small_frame("Upper bound on the ROC of any attack", x=(0, 1), y=(0, 1))
    frame.x_axis(UNIT_TICKS, "False accusations (FPR)")
    frame.y_axis(UNIT_TICKS, "Members found (TPR)")
    frame.band([(fpr, fpr) for fpr, _ in curve], curve, "band s1")
    frame.curve([(0, 0), (1, 1)], "reference")
    frame.curve(curve, "curve s1")
    for fpr, tpr in curve[::3]:
        tip = (
            f"accusing {fpr:.2%} of outsiders wrongly, an attack finds at most {tpr:.1%} of members"
        )
        frame.drawing.circle((frame.x(fpr), frame.y(tpr)), 6, "hit s1", tip=tip)
    frame.drawing.text((frame.right - 6, frame.bottom - 8), "dotted: no information", "note", "end")
    table = pd.DataFrame(curve, columns=["fpr", "largest_tpr"])
    return Figure(name="strongest_attack", drawing=frame.drawing, data=table)
