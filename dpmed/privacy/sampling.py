"""Which units take part in a logical step, and which of their images: exact Poisson sampling.

Stands between the study table (as one unit id a row) and training. A step is delivered as physical
batches of one fixed size, so that memory and compiled shapes do not depend on the draw. Opacus'
and Lightning's loaders cut a draw at an approximate length, hence this module.

It must not read labels or images, shuffle by a seeded generator, or return a unit twice in a step.
The number of physical batches tells the size of the draw: it is not private, do not log it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dpmed.errors import UserError
from dpmed.privacy.randomness import SecretStream

_INCLUSION = "poisson-inclusion"
_VIEWS = "views-of-a-unit"


@dataclass(frozen=True, kw_only=True)
class UnitRows:
    """The rows of every unit: unit u owns `rows_N[starts_U[u]:starts_U[u + 1]]`.

    Args:
        rows_N: row numbers of the table, grouped by unit, int64 (N,).
        starts_U: where each unit starts, and N at the end, int64 (U + 1,).
    """

    rows_N: np.ndarray
    starts_U: np.ndarray

    def __len__(self) -> int:
        return len(self.starts_U) - 1


def unit_rows(unit_ids_N: Sequence[object] | np.ndarray | pd.Series) -> UnitRows:
    """Group the rows of a table by unit.

    Args:
        unit_ids_N: the unit (patient id, or anything unique for unit=image) of every row.

    Raises:
        UserError: an id is missing; the message counts the rows and names the first.
    """
    codes_N, _ = pd.factorize(np.asarray(unit_ids_N), use_na_sentinel=True)
    missing = np.flatnonzero(codes_N < 0)
    if len(missing):
        raise UserError(
            f"{len(missing)} rows have no unit id, the first is row {missing[0]}: without it, what "
            "a patient contributes cannot be bounded. Add the patient ids, drop these rows, or "
            "choose privacy.unit=image."
        )
    rows_N = np.argsort(codes_N, kind="stable").astype(np.int64)
    counts_U = np.bincount(codes_N) if len(codes_N) else np.zeros(0, dtype=np.int64)
    starts_U = np.concatenate([[0], np.cumsum(counts_U)]).astype(np.int64)
    return UnitRows(rows_N=rows_N, starts_U=starts_U)


@dataclass(frozen=True, kw_only=True)
class PhysicalBatch:
    """Part of a logical step, of fixed size: B units with K views each.

    Args:
        step: the logical step.
        rows_BK: row numbers of the table, int64 (B, K). Padding repeats rows of the same unit,
            or is row 0 where there is no unit; a valid row, to be computed and not counted.
        weights_BK: 1/k for each of a unit's k views and 0 for padding, float32 (B, K); with
            repeated views k = K for every unit.
        is_last: whether the logical step ends here: noise, accountant and schedule move now.
    """

    step: int
    rows_BK: np.ndarray
    weights_BK: np.ndarray
    is_last: bool


class PoissonSampler:
    """Draws the units of every logical step from a secret stream.

    A step's draw is a function of the key and the step alone: nothing is carried from one to the
    next, so training starts at any step without replaying those before it.

    Guarantee:
        In each step each unit takes part independently of the others and of all other steps with
        probability floor(q 2^64) / 2^64: at most the `sample_rate` q that is accounted, and less
        than 2^-64 below it. A unit occurs at most once in a step, with at most K images, chosen
        uniformly without replacement, whose weights sum to 1. Repeated views are images of that
        unit again, within its one place of K views: clipping bounds them together.
    """

    def __init__(
        self,
        *,
        stream: SecretStream,
        units: UnitRows,
        sample_rate: float,
        views_per_unit: int,
        physical_batch_size: int,
        repeat_views: bool = False,
    ) -> None:
        """Nothing is drawn yet.

        Args:
            stream: the run's secret stream.
            units: from `unit_rows`, on the training rows alone.
            sample_rate: the plan's, never recomputed from the table.
            views_per_unit: K, the most images of a unit in a step.
            physical_batch_size: B, units in a physical batch; changes no result.
            repeat_views: give a unit with fewer than K images K views all the same, its images in
                turn; sensible where each view is augmented anew (arXiv 2204.13650, sec. 3.2).
        """
        assert 0 < sample_rate <= 1, f"sample_rate={sample_rate}"
        assert views_per_unit >= 1, f"views_per_unit={views_per_unit}"
        if physical_batch_size < 1:
            raise UserError(f"physical_batch_size={physical_batch_size} must be 1 or more.")
        self._stream = stream
        self._units = units
        self._views_per_unit = views_per_unit
        self._physical_batch_size = physical_batch_size
        self._repeat_views = repeat_views
        # A power of two times a float is exact, so this floor is never above the accounted rate.
        self._threshold = int(sample_rate * 2.0**64)

    def units_of_step(self, step: int) -> np.ndarray:
        """The units that take part in a logical step, int64 (n,), ascending; may be empty."""
        words_U = self._stream.integers64(_INCLUSION, step, len(self._units))
        if self._threshold == 0:
            return np.zeros(0, dtype=np.int64)
        # `threshold - 1` fits in 64 bits even at sample rate 1.
        units_n = np.flatnonzero(words_U <= np.uint64(self._threshold - 1))
        assert np.all(np.diff(units_n) > 0), "a unit occurs twice in a logical step"
        return units_n

    def physical_batches(self, step: int) -> Iterator[PhysicalBatch]:
        """The logical step as physical batches; an empty draw gives one of padding alone."""
        rows_nK, weights_nK = self._views(self.units_of_step(step), step)
        size = self._physical_batch_size
        num_batches = max(1, -(-len(rows_nK) // size))
        padding = ((0, num_batches * size - len(rows_nK)), (0, 0))
        rows_PK, weights_PK = np.pad(rows_nK, padding), np.pad(weights_nK, padding)
        for index in range(num_batches):
            part = slice(index * size, (index + 1) * size)
            yield PhysicalBatch(
                step=step,
                rows_BK=rows_PK[part],
                weights_BK=weights_PK[part],
                is_last=index == num_batches - 1,
            )

    def _views(self, units_n: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """At most K rows of every unit, chosen at random, and their weights: (n, K) each."""
        starts_n = self._units.starts_U[units_n]
        counts_n = self._units.starts_U[units_n + 1] - starts_n
        positions_m = _ranges(starts_n, counts_n)
        owners_m = np.repeat(np.arange(len(units_n)), counts_n)
        # The K smallest of independent uniform words are a uniform choice of K.
        words_m = self._stream.integers64(_VIEWS, step, len(positions_m))
        order_m = np.lexsort((words_m, owners_m))
        shuffled_m = self._units.rows_N[positions_m[order_m]]
        taken_n1 = np.minimum(counts_n, self._views_per_unit)[:, None]
        firsts_n1 = (np.cumsum(counts_n) - counts_n)[:, None]
        views_K = np.arange(self._views_per_unit)
        rows_nK = shuffled_m[firsts_n1 + views_K % taken_n1]
        if self._repeat_views:
            weights_nK = np.full(rows_nK.shape, 1.0 / self._views_per_unit)
        else:
            weights_nK = np.where(views_K < taken_n1, 1.0 / taken_n1, 0.0)
        return rows_nK.astype(np.int64), weights_nK.astype(np.float32)


def _ranges(starts_n: np.ndarray, counts_n: np.ndarray) -> np.ndarray:
    """All of start, start + 1, ..., start + count - 1, one unit after another."""
    ends_n = np.cumsum(counts_n)
    offsets_m = np.arange(ends_n[-1] if len(ends_n) else 0)
    return offsets_m + np.repeat(starts_n - (ends_n - counts_n), counts_n)
