"""What is left out or looks wrong is counted once, named, and carried into the data sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpmed.compose import compose
from dpmed.errors import UserError
from dpmed.stages.study import Study, load_study
from tests.releases import RELEASES


def load(*words: str) -> Study:
    config = compose(list(words))
    return load_study(config.data, unit=config.privacy.unit, num_workers=0)


def test_absent_and_broken_images_count_together(tmp_path: Path) -> None:
    RELEASES["padchest"](tmp_path)
    (tmp_path / "0" / "3_0.png").unlink()
    (tmp_path / "0" / "4_1.png").write_bytes(b"")
    words = ["data=padchest", f"data.root={tmp_path}", f"data.cache_dir={tmp_path}/cache"]
    with pytest.raises(UserError, match=r"(?s)2 images cannot be read.*max_skipped_images=2"):
        load(*words, "data.max_skipped_images=1")
    study = load(*words, "data.max_skipped_images=2")
    assert {Path(item["image"]).name for item in study.skipped_images} == {"3_0.png", "4_1.png"}
    assert study.sheet["num_skipped"] == 2
    assert len(study.table) == len(study.images_NHW) == 78


def test_images_that_look_like_a_negative_are_named_and_kept(tmp_path: Path) -> None:
    chest = np.zeros((64, 64), dtype=np.uint8)
    chest[20:, 24:40] = 220
    for number in range(12):
        picture = chest + np.uint8(number)
        Image.fromarray(255 - picture if number < 2 else picture).save(tmp_path / f"{number}.png")
    rows = [f"{number}.png,p{number},{number % 2}" for number in range(12)]
    (tmp_path / "table.csv").write_text("\n".join(["image,patient_id,sick", *rows]))
    study = load(
        "data=manifest", "data.id=hospital", f"data.path={tmp_path}/table.csv",
        "data.labels=[sick]", f"data.cache_dir={tmp_path}/cache",
    )  # fmt: skip
    assert study.suspected_inverted == ["0.png", "1.png"]
    assert study.sheet["num_suspected_inverted"] == 2
    assert any("2 images look inverted" in note for note in study.sheet["notes"])
    assert len(study.table) == 12
