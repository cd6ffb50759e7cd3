"""The Poisson sampler does what is accounted: rate, independence, once a step, replay, views.

The statistical tests use a fixed key, so they pass or fail for good; the false-failure probability
that each states is over the choice of that key.
"""

from __future__ import annotations

import math
import time
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from scipy import stats

from dpmed.errors import UserError
from dpmed.privacy.randomness import SecretStream
from dpmed.privacy.sampling import PhysicalBatch, PoissonSampler, UnitRows, unit_rows

KEY = bytes(range(32))


def sampler(
    units: UnitRows,
    *,
    sample_rate: float,
    views_per_unit: int = 1,
    physical_batch_size: int = 8,
    stream: SecretStream | None = None,
) -> PoissonSampler:
    return PoissonSampler(
        stream=stream or SecretStream.from_key(KEY),
        units=units,
        sample_rate=sample_rate,
        views_per_unit=views_per_unit,
        physical_batch_size=physical_batch_size,
    )


def inclusion(num_units: int, num_steps: int, sample_rate: float) -> np.ndarray:
    """Whether each unit took part in each step, bool (steps, units)."""
    draws = sampler(unit_rows(np.arange(num_units)), sample_rate=sample_rate)
    included = np.zeros((num_steps, num_units), dtype=bool)
    for step in range(num_steps):
        included[step, draws.units_of_step(step)] = True
    return included


def test_unit_rows_groups_rows_by_unit_in_table_order() -> None:
    units = unit_rows(np.array(["b", "a", "b", "c", "b"], dtype=object))
    groups = [
        units.rows_N[units.starts_U[u] : units.starts_U[u + 1]].tolist() for u in range(len(units))
    ]
    assert sorted(groups) == [[0, 2, 4], [1], [3]]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_a_missing_unit_id_is_refused(missing: object) -> None:
    with pytest.raises(UserError, match="1 rows have no unit id, the first is row 1"):
        unit_rows(np.array(["a", missing], dtype=object))


@pytest.mark.parametrize("sample_rate", [0.01, 0.3, 0.9])
def test_each_unit_takes_part_at_the_accounted_rate(sample_rate: float) -> None:
    """N = 400,000 draws; outside the central 1 - 1e-5 of the binomial fails."""
    included = inclusion(num_units=2000, num_steps=200, sample_rate=sample_rate)
    low, high = stats.binom.ppf([5e-6, 1 - 5e-6], included.size, sample_rate)
    assert low <= included.sum() <= high
    # Each unit's own rate: the 2000 p-values of exact binomials, Bonferroni at 1e-5.
    counts = included.sum(axis=0)
    tails = np.minimum(
        stats.binom.cdf(counts, 200, sample_rate), stats.binom.sf(counts - 1, 200, sample_rate)
    )
    assert 2 * tails.min() * 2000 > 1e-5


def test_the_size_of_a_draw_varies_as_poisson_sampling_does() -> None:
    """Shuffled or fixed batches have variance 0: 1000 draws, chi-square, false failure 1e-5."""
    sizes = inclusion(num_units=1000, num_steps=1000, sample_rate=0.05).sum(axis=1)
    statistic = 999 * sizes.var(ddof=1) / (1000 * 0.05 * 0.95)
    assert 5e-6 < stats.chi2.cdf(statistic, 999) < 1 - 5e-6


def test_units_and_steps_are_independent() -> None:
    """1000 x 1000 draws at rate 1/2: coincidences of neighbouring units and steps are fair coins.

    Four binomial tests of n = 999,000, false failure 1e-5 each.
    """
    signs = inclusion(num_units=1000, num_steps=1000, sample_rate=0.5)
    for one, other in (
        (signs[1:], signs[:-1]),
        (signs[:, 1:], signs[:, :-1]),
        (signs[2:], signs[:-2]),
        (signs[:, ::2][:, :-1], signs[:, 2::2]),
    ):
        assert stats.binomtest(int((one == other).sum()), one.size).pvalue > 1e-5


@pytest.mark.parametrize("numerator", [1, 2, 7, 64, 999, 1000])
def test_the_rate_is_never_above_the_accounted_one(numerator: int) -> None:
    sample_rate = numerator / 1000
    threshold = sampler(unit_rows([0]), sample_rate=sample_rate)._threshold
    exact = Fraction(threshold, 2**64)
    assert exact <= Fraction(sample_rate)
    assert Fraction(sample_rate) - exact < Fraction(1, 2**64)


def test_the_words_at_the_threshold_are_compared_as_integers() -> None:
    """In float64, 2^63 - 1 rounds to 2^63 and would be excluded at rate 1/2."""
    words = np.array([2**63 - 1, 2**63, 2**63 + 1, 0, 2**64 - 1], dtype=np.uint64)
    draws = sampler(unit_rows(np.arange(5)), sample_rate=0.5, stream=_Words(words))
    assert draws.units_of_step(0).tolist() == [0, 3]
    everyone = sampler(unit_rows(np.arange(5)), sample_rate=1.0, stream=_Words(words))
    assert everyone.units_of_step(0).tolist() == [0, 1, 2, 3, 4]


class _Words(SecretStream):
    """A stream that returns given words."""

    def __init__(self, words: np.ndarray) -> None:
        super().__init__(KEY, injected=True)
        self.words = words

    def integers64(self, purpose: str, step: int, count: int) -> np.ndarray:
        return self.words[:count]


def batches_of(step: int, **settings: int) -> list[PhysicalBatch]:
    owners = np.repeat(np.arange(300), np.arange(300) % 5 + 1)
    units = unit_rows(owners)
    return list(sampler(units, sample_rate=0.2, **settings).physical_batches(step))


def test_a_step_is_replayed_exactly_from_anywhere() -> None:
    first = {step: batches_of(step, views_per_unit=3) for step in range(6)}
    for step in (5, 2):
        for one, other in zip(first[step], batches_of(step, views_per_unit=3), strict=True):
            np.testing.assert_array_equal(one.rows_BK, other.rows_BK)
            np.testing.assert_array_equal(one.weights_BK, other.weights_BK)


@pytest.mark.parametrize("views_per_unit", [1, 3, 7])
def test_units_occur_once_with_weights_that_sum_to_one(views_per_unit: int) -> None:
    owners = np.repeat(np.arange(300), np.arange(300) % 5 + 1)
    draws = sampler(unit_rows(owners), sample_rate=0.2, views_per_unit=views_per_unit)
    for step in range(20):
        batches = list(draws.physical_batches(step))
        rows_PK = np.concatenate([batch.rows_BK for batch in batches])
        weights_PK = np.concatenate([batch.weights_BK for batch in batches])
        present = weights_PK.sum(axis=1) > 0
        units = owners[rows_PK[present, 0]]
        assert len(set(units)) == present.sum()
        assert sorted(units) == draws.units_of_step(step).tolist()
        np.testing.assert_allclose(weights_PK[present].sum(axis=1), 1, rtol=1e-6)
        # Padding inside a unit shows that unit's own rows, never another patient's.
        assert (owners[rows_PK[present]] == units[:, None]).all()
        for row, weight in zip(rows_PK[present], weights_PK[present], strict=True):
            chosen = row[weight > 0]
            assert len(set(chosen)) == len(chosen)
            assert len(chosen) == min(views_per_unit, (owners == owners[row[0]]).sum())


def test_repeated_views_are_the_units_own_images_in_turn() -> None:
    owners = np.repeat(np.arange(60), np.arange(60) % 5 + 1)
    draws = PoissonSampler(
        stream=SecretStream.from_key(KEY),
        units=unit_rows(owners),
        sample_rate=1.0,
        views_per_unit=4,
        physical_batch_size=60,
        repeat_views=True,
    )
    (batch,) = draws.physical_batches(0)
    np.testing.assert_array_equal(batch.weights_BK, np.full((60, 4), 0.25, dtype=np.float32))
    for unit, row in enumerate(batch.rows_BK):
        own = np.flatnonzero(owners == unit)
        assert set(row) <= set(own), "another patient's image under this one's bound"
        shown = np.unique(row, return_counts=True)[1]
        assert len(shown) == min(4, len(own))
        assert shown.max() - shown.min() <= 1
    (empty,) = PoissonSampler(
        stream=SecretStream.from_key(KEY),
        units=unit_rows(owners),
        sample_rate=1e-15,
        views_per_unit=4,
        physical_batch_size=8,
        repeat_views=True,
    ).physical_batches(0)
    assert not empty.weights_BK.any()


def test_physical_batches_have_one_size_and_one_last() -> None:
    for step in range(10):
        batches = batches_of(step, views_per_unit=2, physical_batch_size=7)
        assert {batch.rows_BK.shape for batch in batches} == {(7, 2)}
        assert {batch.weights_BK.shape for batch in batches} == {(7, 2)}
        assert [batch.is_last for batch in batches] == [False] * (len(batches) - 1) + [True]
        assert all(batch.step == step for batch in batches)
        assert batches[0].rows_BK.dtype == np.int64
        assert batches[0].weights_BK.dtype == np.float32


def test_the_physical_batch_size_changes_no_result() -> None:
    def content(physical_batch_size: int) -> np.ndarray:
        batches = batches_of(4, views_per_unit=2, physical_batch_size=physical_batch_size)
        rows = np.concatenate([batch.rows_BK for batch in batches])
        weights = np.concatenate([batch.weights_BK for batch in batches])
        return rows[weights.sum(axis=1) > 0]

    np.testing.assert_array_equal(content(7), content(512))


def test_an_empty_draw_gives_one_batch_of_padding() -> None:
    draws = sampler(unit_rows(np.arange(3)), sample_rate=1e-15)
    (batch,) = draws.physical_batches(0)
    assert batch.is_last
    assert batch.rows_BK.shape == (8, 1)
    assert batch.weights_BK.sum() == 0


def test_the_choice_of_images_is_uniform() -> None:
    """A unit of 5 images, 2 a step, 3000 steps: all 10 pairs alike, false failure 1e-5."""
    draws = sampler(unit_rows(np.zeros(5)), sample_rate=1.0, views_per_unit=2)
    pairs = [
        tuple(sorted(next(draws.physical_batches(step)).rows_BK[0].tolist()))
        for step in range(3000)
    ]
    _, counts = np.unique(pairs, axis=0, return_counts=True)
    assert len(counts) == 10
    assert stats.chisquare(counts).pvalue > 1e-5


def test_the_choice_of_images_is_independent_of_inclusion() -> None:
    """Two units of 2 images at rate 1: equal choices half of the time, n = 3000, 1e-5."""
    draws = sampler(unit_rows([0, 0, 1, 1]), sample_rate=1.0)
    choices = np.array(
        [next(draws.physical_batches(step)).rows_BK[:2, 0] % 2 for step in range(3000)]
    )
    assert stats.binomtest(int((choices[:, 0] == choices[:, 1]).sum()), 3000).pvalue > 1e-5


def test_a_draw_does_not_loop_over_units_in_python() -> None:
    """A million units: about 10 ms a draw vectorised, 100 ms or more in a loop."""
    draws = sampler(unit_rows(np.arange(1_000_000)), sample_rate=0.0001, physical_batch_size=64)
    start = time.process_time()
    for step in range(10):
        assert len(list(draws.physical_batches(step))) >= 1
    assert (time.process_time() - start) / 10 < 0.08


def test_a_physical_batch_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="physical_batch_size=0"):
        sampler(unit_rows([0]), sample_rate=0.5, physical_batch_size=0)


@pytest.mark.opacus_defect
def test_opacus_draws_follow_torchs_seed_where_dpmeds_follow_a_secret_key() -> None:
    def opacus_draw() -> list[int]:
        torch.manual_seed(0)
        return next(iter(UniformWithReplacementSampler(num_samples=1000, sample_rate=0.1)))

    def our_draw() -> list[int]:
        torch.manual_seed(0)
        np.random.seed(0)
        units = unit_rows(np.arange(1000))
        draws = sampler(units, sample_rate=0.1, stream=SecretStream.from_os())
        return draws.units_of_step(0).tolist()

    assert opacus_draw() == opacus_draw()
    assert our_draw() != our_draw()


@pytest.mark.opacus_defect
def test_opacus_includes_units_more_often_than_accounted() -> None:
    """It compares 24-bit numbers with q, so that the true rate is q rounded up to 2^-24."""
    sample_rate = 1e-8
    words = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) * 2**24
    assert torch.equal(words, words.round())
    true_rate = Fraction(math.ceil(sample_rate * 2**24), 2**24)
    assert true_rate > 5 * Fraction(sample_rate)
    assert Fraction(sampler(unit_rows([0]), sample_rate=sample_rate)._threshold, 2**64) <= (
        Fraction(sample_rate)
    )
