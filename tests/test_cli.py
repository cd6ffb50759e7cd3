"""The `dpmed` command: help that helps, and errors in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpmed.cli import main


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    finished = ("release", "predict", "evaluate", "matrix", "overlap", "dashboard")
    for command in ("plan", "report", "compare", "collect", *finished):
        assert f"dpmed {command}" in text


@pytest.mark.parametrize("command", ["report", "collect"])
def test_a_folder_that_is_none_is_named(command: str) -> None:
    with pytest.raises(SystemExit, match="nowhere is no folder"):
        main([command, "nowhere"])


def test_a_run_is_not_compared_with_itself(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="two different runs"):
        main(["compare", str(tmp_path), str(tmp_path)])
