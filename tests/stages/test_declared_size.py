"""N of the privacy plan comes from public settings, and `data.fraction` multiplies it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpmed.compose import compose
from dpmed.errors import UserError
from dpmed.stages.declared_size import declared_num_units
from tests.releases import RELEASES


def size(*words: str) -> tuple[int, str]:
    config = compose(list(words))
    privacy = config.privacy
    return declared_num_units(config.data, unit=privacy.unit, num_units=privacy.num_units)


def test_the_fraction_multiplies_n_wherever_it_comes_from() -> None:
    whole, _ = size()
    assert size("data.fraction=0.25")[0] == round(whole * 0.25)
    declared, origin = size("data.fraction=0.25", "privacy.num_units=1000")
    assert declared == 250
    assert "data.fraction=0.25" in origin
    assert "privacy.num_units" in origin


@pytest.mark.parametrize(
    ("name", "advised"),
    [
        ("chexpert", round(64540 * 0.85)),
        ("mimic_cxr_jpg", 64586),
        ("padchest", round(67625 * 0.7)),
        ("vindr_cxr", round(15000 * 0.9)),
    ],
)
def test_a_folder_is_not_taken_for_the_whole_release(
    name: str, advised: int, tmp_path: Path
) -> None:
    RELEASES[name](tmp_path)
    with pytest.raises(UserError, match=f"with all of it in .*privacy.num_units={advised}\\."):
        size(f"data={name}", f"data.root={tmp_path}")


def test_no_figure_is_advised_where_none_is_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Add privacy.num_units=N \(a round figure") as error:
        size("data=taixray", f"data.root={tmp_path}")
    assert "published" not in str(error.value)
