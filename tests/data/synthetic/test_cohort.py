import numpy as np
import pandas as pd
import pytest

from dpmed.data.synthetic.cohort import FINDINGS, LABELS, PUBLIC_SITE, SITES, synthetic_cohort
from dpmed.data.table import validate_table
from dpmed.errors import UserError


@pytest.fixture(scope="module")
def cohort() -> pd.DataFrame:
    return synthetic_cohort(num_patients=8000, seed=11)


def test_the_table_keeps_the_data_contract(cohort):
    assert list(cohort)[:7] == ["image", "patient_id", "study_id", "sex", "age", "view", "site"]
    assert list(cohort)[7:] == list(LABELS)
    assert cohort["image"].is_unique
    assert set(cohort["sex"]) == {"F", "M"}
    assert set(cohort["view"]) == {"PA", "AP"}
    assert set(cohort["site"]) == set(SITES)
    assert cohort["age"].between(18, 95).all()
    assert (cohort[list(LABELS)].dtypes == np.float32).all()
    assert cohort.attrs["notes"]
    checked = validate_table(cohort, list(LABELS))
    assert len(checked) == len(cohort)


def test_no_finding_exactly_when_nothing_else(cohort):
    anything = cohort[list(FINDINGS)].max(axis=1)
    assert (cohort["no_finding"] == 1 - anything).all()


def test_patients_have_one_to_six_images(cohort):
    sizes = cohort.groupby("patient_id").size()
    assert sorted(sizes.unique()) == [1, 2, 3, 4, 5, 6]
    assert len(sizes) == 8000
    assert (cohort.groupby("patient_id")[["sex", "site"]].nunique() == 1).all(axis=None)


@pytest.mark.parametrize("label", FINDINGS)
def test_labels_of_a_patient_are_alike_but_not_the_same(cohort, label):
    """First against second image, about 4,000 pairs: the standard error of phi is under .02."""
    first, second = (
        cohort[cohort["image"].str.endswith(f"/{visit}")].set_index("patient_id")[label]
        for visit in (0, 1)
    )
    phi = np.corrcoef(first.loc[second.index], second)[0, 1]
    assert 0.2 < phi < 0.7


@pytest.mark.parametrize(
    ("finding", "attribute", "higher", "lower", "smallest_gap"),
    [
        ("pneumonia", "site", "emergency", "community", 0.05),
        ("pleural_effusion", "site", "emergency", "community", 0.08),
        ("cardiomegaly", "sex", "F", "M", 0.01),
        ("pleural_effusion", "view", "AP", "PA", 0.08),
        ("atelectasis", "view", "AP", "PA", 0.04),
        ("cardiomegaly", "old", True, False, 0.08),
        ("pleural_effusion", "old", True, False, 0.08),
    ],
)
def test_prevalence_differs_between_groups(cohort, finding, attribute, higher, lower, smallest_gap):
    """8,000 patients, about 18,000 images: the standard error of a gap is under .01.

    The designed gaps exceed the tolerance by three standard errors or more, so that a false
    failure has a probability below .002 (the seed is fixed all the same).
    """
    groups = cohort.assign(old=cohort["age"] >= 65).groupby(attribute)[finding].mean()
    assert groups[higher] - groups[lower] > smallest_gap


def test_every_label_is_neither_rare_nor_common(cohort):
    prevalence = cohort[list(LABELS)].mean()
    assert prevalence[list(FINDINGS)].between(0.10, 0.30).all()
    assert 0.35 < prevalence["no_finding"] < 0.65


def test_a_patient_does_not_depend_on_the_size_of_the_cohort(cohort):
    part = synthetic_cohort(num_patients=50, seed=11, first_patient=100)
    same = cohort[cohort["patient_id"].isin(part["patient_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, same)


def test_seeds_differ_and_repeat():
    table = synthetic_cohort(num_patients=30, seed=1)
    pd.testing.assert_frame_equal(table, synthetic_cohort(num_patients=30, seed=1))
    assert not table.equals(synthetic_cohort(num_patients=30, seed=2))


def test_the_public_site_is_not_among_the_private_ones():
    assert PUBLIC_SITE not in SITES
    table = synthetic_cohort(num_patients=20, seed=0, sites=[PUBLIC_SITE])
    assert set(table["site"]) == {PUBLIC_SITE}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sites": ["comunity"]}, "Did you mean 'community'"),
        ({"sites": []}, "sites"),
        ({"num_patients": 0}, "num_patients=0"),
        ({"first_patient": -1}, "first_patient=-1"),
    ],
)
def test_bad_input_is_named(settings, message):
    with pytest.raises(UserError, match=message):
        synthetic_cohort(**{"num_patients": 5, "seed": 0, **settings})
