"""The text table at a run's end and the model card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from dpmed.report.page import build_report
from dpmed.report.tables import summary_table
from tests.report.conftest import LABELS, make_plan

SCHEMAS = Path(__file__).parents[2] / "dpmed"


def test_table_holds_every_label_each_sex_epsilon_and_the_page(small_run: Path) -> None:
    page = build_report(small_run)
    table = summary_table(small_run)
    auroc = json.loads((small_run / "metrics.json").read_text())["splits"]["test"]["auroc"]
    for label in (*LABELS, "macro"):
        entry = auroc[label]
        interval = f"({entry['ci_low']:.3f}–{entry['ci_high']:.3f})"
        assert f"{entry['value']:.3f} {interval}" in table
    assert "Women, mean over labels" in table
    assert "epsilon 8.00 at delta 6e-06 for each patient" in table
    assert str(page) in table
    assert max(map(len, table.splitlines()[:-2])) <= 80


def test_table_is_loud_without_a_guarantee(small_run: Path, edit_json: Callable[..., None]) -> None:
    edit_json(small_run / "plan.json", private=False)
    assert "NOT PRIVATE" in summary_table(small_run)
    edit_json(small_run / "plan.json", enabled=False, epsilon=None)
    assert "Trained without differential privacy" in summary_table(small_run)


def test_table_of_an_empty_folder_says_what_is_missing(tmp_path: Path) -> None:
    table = summary_table(tmp_path)
    assert "metrics.json is missing" in table
    assert "plan.json is missing" in table


def test_card_has_metadata_for_a_hub(small_run: Path, edit_json: Callable[..., None]) -> None:
    build_report(small_run)
    card = (small_run / "report" / "report.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    macro = json.loads((small_run / "metrics.json").read_text())["splits"]["test"]["auroc"]["macro"]
    result = metadata["model-index"][0]["results"][0]
    assert result["metrics"][0]["value"] == pytest.approx(macro["value"], abs=5e-5)
    assert "differential-privacy" in metadata["tags"]
    assert "not covered by epsilon" in body
    edit_json(small_run / "plan.json", private=False)
    build_report(small_run)
    card = (small_run / "report" / "report.md").read_text(encoding="utf-8")
    assert "differential-privacy" not in card.split("---\n", 2)[1]
    assert "NOT PRIVATE" in card


@pytest.mark.parametrize("epsilon", [8.0, 1.0, None])
def test_invented_plans_keep_the_published_schema(epsilon: float | None) -> None:
    schema = json.loads((SCHEMAS / "privacy" / "schemas" / "plan.schema.json").read_text())
    jsonschema.validate(make_plan(epsilon=epsilon), schema)
