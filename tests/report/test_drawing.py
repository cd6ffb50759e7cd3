"""Scales, ticks, wording, and the curve thinning."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dpmed.report.numbers import (
    at_most,
    compact,
    estimate,
    group_name,
    label_name,
    quiet_intervals,
    scientific,
)
from dpmed.report.plot_intervals import IntervalRow, auroc_scale, interval_figure
from dpmed.report.plot_roc import RocInput, roc_figure
from dpmed.report.svg import Drawing, linear, logarithmic, nice_ticks


@pytest.mark.parametrize(
    ("epsilon", "shown"),
    [(7.99997, "8.00"), (8.0, "8.00"), (8.0001, "8.01"), (0.12001, "0.121"), (1.23, "1.23")],
)
def test_epsilon_is_never_rounded_down(epsilon: float, shown: str) -> None:
    assert at_most(epsilon) == shown
    assert float(shown) >= epsilon - 1e-6


def test_wording() -> None:
    assert label_name("pleural_effusion") == "Pleural effusion"
    assert group_name("sex", "F") == "Women"
    assert group_name("age", "[30, 60)") == "30–59 years"
    assert group_name("sex & age", "M & [80, 100)") == "Men, 80–99 years"
    assert group_name("site", "north_wing") == "north wing"
    assert scientific(6e-6) == "6\u00a0×\u00a010⁻⁶"
    assert scientific(1e-5) == "10⁻⁵"
    assert compact(112120) == "112,120"
    assert compact(None) == "none"
    marked = quiet_intervals("<b> 0.8 (0.7–0.9)")
    assert marked == '&lt;b&gt; 0.8 <span class="ci">(0.7–0.9)</span>'


@pytest.mark.parametrize("entry", [None, 3, [], {}, {"value": float("nan")}, {"value": "x"}])
def test_unusable_entry_is_not_estimable(entry: object) -> None:
    item = estimate(entry)
    assert item.value is None
    assert item.text == "not estimable"
    assert item.reason


def test_value_without_interval_says_why() -> None:
    entry = {"value": 0.7, "ci_low": None, "ci_high": None, "reason": "interval not estimable: x"}
    item = estimate(entry)
    assert item.text == "0.700"
    assert item.short_reason == "interval not estimable: x"


def test_scales_and_ticks() -> None:
    assert linear((0, 10), (100, 200))(5) == 150
    assert linear((3, 3), (100, 200))(3) == 150
    assert logarithmic((1, 100), (0, 10))(10) == pytest.approx(5)
    assert nice_ticks(0, 1, 4) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert nice_ticks(0.5, 0.5) == [0.5]
    assert 4 <= len(nice_ticks(0, 437, 5)) <= 7


def test_drawing_escapes_words_and_tooltips() -> None:
    drawing = Drawing(width=10, height=10, label='"><script>')
    drawing.text((0, 0), "<script>", "tick")
    drawing.circle((1, 1), 1, "dot", tip="</title><script>")
    drawing.open_group("overlay", attribute='"><script>')
    drawing.close_group()
    assert "<script" not in drawing.inline()
    assert "<script" not in drawing.standalone()


def test_interval_scale_holds_every_interval() -> None:
    rows = [
        estimate({"value": v, "ci_low": v - 0.1, "ci_high": v + 0.05}) for v in (0.46, 0.7, 0.9)
    ]
    scale = auroc_scale([*rows, estimate(None)])
    assert scale.low == pytest.approx(0.3)
    assert scale.percent(1.0) == "100.00%"
    assert scale.percent(-5) == "0.00%"
    figure = interval_figure(
        [IntervalRow(name="a", estimate=row) for row in [*rows, estimate(None)]],
        name="x",
        title="AUROC",
    )
    assert len(figure.data) == 4
    assert figure.drawing.inline().count("<circle") == 3


def _predictions(num_rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    truth = (rng.random(num_rows) < 0.3).astype(float)
    score = rng.normal(truth, 1.0)
    return pd.DataFrame(
        {
            "label_x": truth,
            "prob_x": 1 / (1 + np.exp(-score)),
            "sex": rng.choice(["F", "M"], size=num_rows),
            "age": rng.uniform(20, 90, size=num_rows),
        }
    )


def _roc(label: str = "x", curve: dict | None = None) -> RocInput:
    return RocInput(label=label, curve=curve or {}, auroc=estimate(None), operating_point=None)


def test_thinned_roc_keeps_the_area() -> None:
    """The thinned curve's area differs from the exact AUROC by less than .003."""
    predictions = _predictions(20_000)
    figure = roc_figure(_roc(), predictions=predictions, groups={"sex": ["F"], "age": ["[40, 60)"]})
    assert figure is not None
    whole = figure.data[figure.data["attribute"] == "all"]
    area = np.trapezoid(whole["tpr"], whole["fpr"])
    truth, score = predictions["label_x"] == 1, predictions["prob_x"]
    ranks = score.rank()
    positives = truth.sum()
    exact = (ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * (~truth).sum())
    assert area == pytest.approx(exact, abs=0.003)
    assert len(whole) < 1000
    assert set(figure.data["group"]) == {"all", "F", "[40, 60)"}


def test_roc_prefers_the_curve_of_the_metrics() -> None:
    curve = {"fpr": [0, 0.5, 1], "tpr": [0, 0.8, 1], "ci_low": [0, 0.7, 1], "ci_high": [0, 0.9, 1]}
    figure = roc_figure(_roc(curve=curve), predictions=pd.DataFrame(), groups={})
    assert figure is not None
    assert figure.data["tpr"].tolist() == [0, 0.8, 1]
    assert "band" in figure.drawing.inline()


@pytest.mark.parametrize("column", ["label_x", "prob_x"])
def test_roc_of_constant_or_missing_truth_is_left_out(column: str) -> None:
    predictions = _predictions(50)
    predictions[column] = np.nan
    assert roc_figure(_roc(), predictions=predictions, groups={}) is None
    assert roc_figure(_roc("absent"), predictions=predictions, groups={}) is None
    predictions = _predictions(50).assign(label_x=1.0)
    assert roc_figure(_roc(), predictions=predictions, groups={}) is None
