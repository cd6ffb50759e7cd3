import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from dpmed.data.synthetic.cohort import LABELS, PUBLIC_SITE, SITES, synthetic_cohort
from dpmed.data.synthetic.render import iterate_radiographs, render_radiographs
from dpmed.errors import UserError


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return synthetic_cohort(num_patients=30, seed=4, sites=[*SITES, PUBLIC_SITE])


@pytest.fixture(scope="module")
def images(table) -> np.ndarray:
    return render_radiographs(table, seed=4, image_size=64)


@pytest.mark.parametrize(("chunk_size", "num_workers"), [(1, 1), (7, 1), (13, 2), (1000, 3)])
def test_chunks_and_workers_do_not_change_a_pixel(table, images, chunk_size, num_workers):
    chunks = list(
        iterate_radiographs(
            table, seed=4, image_size=64, chunk_size=chunk_size, num_workers=num_workers
        )
    )
    assert {len(chunk) for chunk in chunks[:-1]} <= {chunk_size}
    np.testing.assert_array_equal(np.concatenate(chunks), images)


def test_order_and_company_do_not_change_a_pixel(table, images):
    rows = np.random.default_rng(0).permutation(len(table))[:11]
    alone = render_radiographs(table.iloc[rows], seed=4, image_size=64)
    np.testing.assert_array_equal(alone, images[rows])


def test_other_seeds_give_other_pictures(table, images):
    other = render_radiographs(table[:5], seed=5, image_size=64)
    assert all((a != b).mean() > 0.5 for a, b in zip(other, images, strict=False))


@pytest.mark.parametrize("image_size", [32, 100, 256])
def test_every_size_shows_the_same_body(table, images, image_size):
    """Block means of a picture at two sizes are close: correlation over .9 for each picture."""
    rendered = render_radiographs(table[:8], seed=4, image_size=image_size)
    assert rendered.shape == (8, image_size, image_size)
    for one, other in zip(rendered, images, strict=False):
        assert np.corrcoef(_thumbnail(one).ravel(), _thumbnail(other).ravel())[0, 1] > 0.9


def test_histograms_are_those_of_radiographs(images):
    assert images.dtype == np.uint8
    for picture in images:
        dark, bright = np.quantile(picture, [0.05, 0.95])
        assert dark < 110
        assert bright > 130
        assert picture.std() > 25
        assert len(np.unique(picture)) > 60


def test_the_lungs_are_darker_than_what_lies_between_them(images):
    """A mean over patients; single patients are shifted, tilted and ill."""
    mean = images.mean(axis=0)
    lungs = (mean[20:36, 16:24].mean() + mean[20:36, 41:49].mean()) / 2
    assert mean[20:36, 30:35].mean() - lungs > 25
    assert mean[50:58, 22:44].mean() - lungs > 40


def test_sites_differ_in_contrast_and_grain():
    """The same 40 patients at four sites; each pair of sites differs in one of two measures."""
    patients = synthetic_cohort(num_patients=40, seed=8).drop_duplicates("patient_id")
    measures = {}
    for site in (*SITES, PUBLIC_SITE):
        pictures = render_radiographs(patients.assign(site=site), seed=8, image_size=64)
        inner = pictures[:, 12:52, 12:52].astype(float)
        grain = np.abs(
            inner[:, 1:, 1:] - inner[:, 1:, :-1] - inner[:, :-1, 1:] + inner[:, :-1, :-1]
        )
        measures[site] = np.array([inner.std(axis=(1, 2)).mean() / 5, np.median(grain)])
    sites = list(measures)
    for i, one in enumerate(sites):
        for other in sites[i + 1 :]:
            assert np.abs(measures[one] - measures[other]).max() > 1.0, (one, other)


def test_women_and_bedside_views_look_different():
    patients = synthetic_cohort(num_patients=60, seed=9).drop_duplicates("patient_id")
    for column, values in (("sex", ("F", "M")), ("view", ("AP", "PA"))):
        one, other = (
            render_radiographs(patients.assign(**{column: value}), seed=9, image_size=64)
            for value in values
        )
        assert np.abs(one.mean(axis=0) - other.mean(axis=0)).max() > 8


def test_pixel_regression_is_not_enough():
    """Logistic regression on pixels stays under .80 (700 training patients, 300 others)."""
    train = synthetic_cohort(num_patients=700, seed=21)
    test = synthetic_cohort(num_patients=300, seed=21, first_patient=700)
    pixels, unseen = (
        _thumbnail(render_radiographs(part, seed=21, image_size=64)).reshape(len(part), -1)
        for part in (train, test)
    )
    basis = PCA(60, whiten=True, random_state=0).fit(pixels)
    scores = []
    for label in LABELS:
        model = LogisticRegression(C=0.01).fit(basis.transform(pixels), train[label])
        scores.append(roc_auc_score(test[label], model.decision_function(basis.transform(unseen))))
    assert 0.55 < np.mean(scores) < 0.80


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 4}, "image_size=4"),
        ({"num_workers": 0}, "num_workers=0"),
        ({"table": pd.DataFrame({"image": ["a"]})}, "patient_id"),
    ],
)
def test_bad_input_is_named(table, change, message):
    with pytest.raises(UserError, match=message):
        render_radiographs(**{"table": table, "seed": 0, "image_size": 64, **change})


def test_an_unknown_site_is_named(table):
    with pytest.raises(UserError, match="Did you mean 'archive'"):
        render_radiographs(table.assign(site="archiv"), seed=0, image_size=64)


def _thumbnail(images: np.ndarray) -> np.ndarray:
    """16 by 16 block means; sizes that 16 does not divide are cropped."""
    size = images.shape[-1] // 16
    cropped = images[..., : 16 * size, : 16 * size]
    return cropped.reshape(*images.shape[:-2], 16, size, 16, size).mean(axis=(-3, -1))
