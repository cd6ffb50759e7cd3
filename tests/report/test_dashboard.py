"""The W&B dashboard is checked by its specification, without a connection or an account."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpmed.cli import main
from dpmed.report import wandb_keys

# wandb-workspaces declares its own validators in pydantic's older style.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_the_specification_asks_for_the_keys_that_runs_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    path = tmp_path / "spec.json"
    main(["dashboard", "--project", "p", "--entity", "me", "--labels", "no_finding",
          "--spec", str(path)])  # fmt: skip
    content = json.loads(path.read_text(encoding="utf-8"))
    workspace, report = content["workspace"], content["report"]
    for text in (json.dumps(workspace), json.dumps(report)):
        for key in (wandb_keys.EPSILON, wandb_keys.MACRO, wandb_keys.auroc_key("no_finding")):
            assert key in text
        for table in wandb_keys.TABLES.values():
            assert table in text
        assert wandb_keys.CONDITION in text
        assert all(f"{name}_table" in text for name in wandb_keys.CHARTS)
    sections = workspace["spec"]["section"]["panelBankConfig"]["sections"]
    assert next(part["name"] for part in sections if part["panels"]) == "What privacy costs"
    assert "not these figures" in json.dumps(report)


def test_publishing_without_an_entity_names_the_way_out() -> None:
    with pytest.raises(SystemExit, match=r"--entity is missing.*--spec"):
        main(["dashboard"])
