import numpy as np
import pytest

from dpmed.data.synthetic import (
    LABELS,
    captions,
    contact_sheet,
    render_radiographs,
    synthetic_cohort,
)
from dpmed.errors import UserError


def test_a_sheet_holds_every_picture_and_its_caption():
    table = synthetic_cohort(num_patients=10, seed=1)[:5]
    images = render_radiographs(table, seed=1, image_size=64)
    sheet = contact_sheet(images, captions(table), num_columns=3, tile_size=64)
    assert sheet.mode == "L"
    assert 3 * 64 < sheet.width < 3 * 80
    pixels = np.asarray(sheet)
    np.testing.assert_array_equal(pixels[6:70, 6:70], images[0])
    assert pixels[71:90, 6:70].min() < 60  # ink below the picture


def test_captions_name_patient_and_labels():
    table = synthetic_cohort(num_patients=5, seed=1)[:1]
    table = table.assign(sex="F", age=61.2, view="AP", site="community")
    table = table.assign(**dict.fromkeys(LABELS, 0.0)).assign(pleural_effusion=1.0)
    assert captions(table) == ["F 61 y, AP, community\npleural effusion"]


def test_pictures_and_titles_must_match():
    with pytest.raises(UserError, match="2 pictures and 1 titles"):
        contact_sheet(np.zeros((2, 8, 8), np.uint8), ["one"])
