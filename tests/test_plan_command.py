"""`dpmed plan` answers from public settings: no data set is opened."""

from __future__ import annotations

import pytest

from dpmed.cli import main

SMALL = ["model.name=test_convnext", "init=scratch", "performance.physical_batch_size=4"]


def test_a_plan_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=manifest", "data.id=h", "data.path=/nowhere.csv", "privacy.num_units=4000"]
    main(["plan", "experiment=cxr_eps8", *words, *SMALL])
    text = capsys.readouterr().out
    for expected in ("epsilon 8", "noise multiplier", "training time", "peak memory", "4000"):
        assert expected in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data=manifest", "data.id=h", "data.path=x.csv"], "privacy.num_units=N"),
        (["privacy.delta=0.3"], "delta"),
        (["privcy.delta=0.3"], "privacy.delta"),
    ],
)
def test_an_impossible_plan_is_one_message(words: list[str], expected: str) -> None:
    with pytest.raises(SystemExit, match=expected):
        main(["plan", *words, *SMALL])
