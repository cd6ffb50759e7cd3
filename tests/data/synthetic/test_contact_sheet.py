import numpy as np
import pytest

from dpmed.data.synthetic import (
    LABELS,
    captions,
    contact_sheet,
    example_rows,
    render_radiographs,
    synthetic_cohort,
)
from dpmed.errors import UserError


def test_a_sheet_shows_every_label_from_several_sites():
    table = synthetic_cohort(num_patients=200, seed=1)
    rows = example_rows(table, num_each=3)
    chosen = table.iloc[rows]
    assert len(rows) == 15
    assert chosen["patient_id"].is_unique
    for index, label in enumerate(LABELS):
        assert (chosen[label].iloc[3 * index : 3 * index + 3] == 1).all()
    assert chosen["site"].nunique() == 3
    images = render_radiographs(chosen, seed=1, image_size=64)
    sheet = contact_sheet(images, captions(chosen), num_columns=3, tile_size=64)
    assert sheet.mode == "L"
    assert sheet.width < 3 * 80
    pixels = np.asarray(sheet)
    assert (pixels == 255).mean() < 0.6
    assert pixels[:, :70].min() < 60


def test_captions_name_patient_and_labels():
    table = synthetic_cohort(num_patients=5, seed=1)[:1]
    table = table.assign(sex="F", age=61.2, view="AP", site="community")
    table = table.assign(**dict.fromkeys(LABELS, 0.0)).assign(pleural_effusion=1.0)
    assert captions(table) == ["F 61 y, AP, community\npleural effusion"]


def test_pictures_and_titles_must_match():
    with pytest.raises(UserError, match="2 pictures and 1 titles"):
        contact_sheet(np.zeros((2, 8, 8), np.uint8), ["one"])
