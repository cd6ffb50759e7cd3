"""`dpmed overlap` on folders: counts without names, pairs with names, controls beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dpmed import data
from dpmed.cli import main
from dpmed.data.overlap.planted import changed_copy, draw_change


def test_a_copied_patient_is_found_and_only_the_list_names_it(tmp_path: Path) -> None:
    table = data.synthetic_cohort(num_patients=24, seed=4).drop_duplicates("patient_id")
    images = data.render_radiographs(table, seed=4, image_size=144, num_workers=1)
    private, public = tmp_path / "private", tmp_path / "public"
    private.mkdir()
    public.mkdir()
    for row, image in enumerate(images):
        Image.fromarray(image).save((private if row < 12 else public) / f"picture_{row:02d}.png")
    copy = changed_copy(images[15], draw_change(np.random.default_rng(0)))
    Image.fromarray(copy).save(private / "secretname.jpg", quality=60)
    (private / "broken.png").write_bytes(b"no image")
    words = ["overlap", "--private", str(private), "--public", str(public), "--controls", "5"]
    main([*words, "--planted", "6", "--output", str(tmp_path / "out")])
    pairs = pd.read_csv(tmp_path / "out" / "pairs.csv")
    assert pairs[["private_image", "public_image", "kind"]].to_numpy().tolist() == [
        ["secretname.jpg", "picture_15.png", "near"]
    ]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["private"]["num_flagged_images"] == 1
    assert summary["private"]["num_unreadable"] == 1
    assert summary["controls"]["synthetic"] == {"num_images": 5, "num_flagged": 0}
    assert summary["controls"]["planted"] == {"num_images": 6, "num_found": 6}
    for name in ("summary.json", "summary.md", "index.html"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "secretname" not in text
    assert "1 patient of private found in public" in text


def test_a_folder_without_images_and_synthetic_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no image"):
        main(["overlap", "--private", str(tmp_path), "--public", str(tmp_path)])
    with pytest.raises(SystemExit, match="has no patients"):
        main(["overlap", "--private", "data=synthetic", "--public", str(tmp_path)])
