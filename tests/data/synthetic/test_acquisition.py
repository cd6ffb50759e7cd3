import numpy as np
import pytest

from dpmed.data.synthetic.acquisition import ACQUISITIONS, PUBLIC_LIMITS, draw_shots
from dpmed.data.synthetic.cohort import POPULATIONS, PUBLIC_SITE, SITES
from dpmed.data.synthetic.draws import Draws, generator_for


def _shots(site, ap):
    generators = [generator_for(0, f"{site}/{number}") for number in range(400)]
    return draw_shots([ACQUISITIONS[site]] * 400, np.full(400, float(ap)), Draws(generators, 48))


def test_every_site_has_a_population_and_a_scanner():
    assert set(POPULATIONS) == set(ACQUISITIONS) == {*SITES, PUBLIC_SITE}


@pytest.mark.parametrize("ap", [0, 1])
def test_the_public_site_stays_within_the_public_limits(ap):
    for name, (low, high) in PUBLIC_LIMITS.items():
        values = getattr(_shots(PUBLIC_SITE, ap), name)
        assert low <= values.min() <= values.max() <= high, name


@pytest.mark.parametrize("ap", [0, 1])
@pytest.mark.parametrize("site", SITES)
def test_every_private_site_stays_outside_the_public_limits(site, ap):
    shots = _shots(site, ap)
    outside = [
        name
        for name, (low, high) in PUBLIC_LIMITS.items()
        if getattr(shots, name).min() > high or getattr(shots, name).max() < low
    ]
    assert len(outside) >= 2
