import numpy as np
import pytest

from dpmed.data.synthetic.anatomy import draw_chest
from dpmed.data.synthetic.body import AP_MAGNIFICATION, HEART_LIMIT, VISIBLE, draw_bodies
from dpmed.data.synthetic.cohort import FINDINGS, LABELS, synthetic_cohort


@pytest.fixture(scope="module")
def table():
    return synthetic_cohort(num_patients=400, seed=6)


@pytest.fixture(scope="module")
def body(table):
    return draw_bodies(table, seed=6)


def test_heart_thorax_ratio_agrees_with_cardiomegaly(table, body):
    magnified = np.where(table["view"] == "AP", AP_MAGNIFICATION, 1.0)
    ratio = body.heart_thorax_ratio() / magnified
    np.testing.assert_array_equal(ratio > HEART_LIMIT, table["cardiomegaly"] == 1)


def test_ap_views_magnify_hearts_beyond_the_limit(table, body):
    """What makes the view a confounder: some healthy hearts measure over one half in AP."""
    healthy_ap = (table["view"] == "AP") & (table["cardiomegaly"] == 0)
    share = (body.heart_thorax_ratio()[healthy_ap] > HEART_LIMIT).mean()
    assert 0.03 < share < 0.6


def test_the_drawn_heart_has_the_ratio_of_its_numbers(table, body):
    """Widest heart shadow in the drawn picture, at 256 px, against the latent width: 4 % apart."""
    rows = np.arange(12)
    part = body.select(rows)
    ticks = np.linspace(-1, 1, 256, dtype=np.float32)
    x = np.broadcast_to(ticks[None, None, :], (12, 256, 256)) + part.midline
    y = np.broadcast_to(ticks[None, :, None], (12, 256, 256))
    chest = draw_chest(part, x, y, np.full((12, 1, 1), 2 / 256, np.float32))
    below_hilum = (ticks > -0.05)[None, :, None]
    shadow = (chest.middle < 0) & below_hilum
    width = [np.ptp(ticks[picture.any(axis=0)]) for picture in shadow]
    np.testing.assert_allclose(width, 2 * part.heart_width.ravel(), rtol=0.04)


def test_severity_agrees_with_the_label(table, body):
    present = table[list(FINDINGS)].to_numpy() == 1
    np.testing.assert_array_equal(body.severity >= VISIBLE, present)
    assert ((body.severity > 0) & ~present).mean() > 0.1  # doubtful cases among the negatives


def test_a_patient_keeps_the_same_bones(table, body):
    numbers = body.rib_spacing.ravel()
    spread = table.assign(spacing=numbers).groupby("patient_id")["spacing"].nunique()
    assert (spread == 1).all()
    assert len(np.unique(numbers)) > 300


def test_labels_change_the_findings_and_nothing_else(table):
    """The patient's build comes from the keys alone; only the findings follow the labels."""
    healthy = table[:50].assign(**dict.fromkeys(LABELS, np.float32(0)))
    one, other = draw_bodies(table[:50], seed=6), draw_bodies(healthy, seed=6)
    np.testing.assert_array_equal(one.lung_top, other.lung_top)
    np.testing.assert_array_equal(one.detail, other.detail)
