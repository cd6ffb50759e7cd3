"""An older run's settings are completed, a broken one's page is still built."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dpmed.compose import compose
from dpmed.config import to_mapping
from dpmed.errors import UserError
from dpmed.rebuild import measurement_settings, rebuild


def test_settings_that_came_later_take_their_defaults(tmp_path: Path) -> None:
    config = compose(["evaluation.num_bootstrap=321", "data.num_patients=77"])
    mapping = to_mapping(config)
    del mapping["evaluation"]["embeddings"]
    del mapping["performance"], mapping["data"]["id"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(mapping), encoding="utf-8")
    found = measurement_settings(tmp_path)
    assert found["settings"] == config.evaluation
    assert found["labels"] == config.data.labels


@pytest.mark.parametrize("text", ["", "[1", "name: x"])
def test_without_settings_the_page_is_built_and_the_metrics_stay(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError):
        measurement_settings(tmp_path)
    page = rebuild(tmp_path)
    assert "metrics.json stays as it is" in caplog.text
    assert "metrics.json is missing" in page.read_text(encoding="utf-8")
