"""Patient-cluster bootstrap: patients are drawn with replacement and keep all their images.

Replicate r draws from its own generator, seeded with (seed, r), over the sorted patient ids, so
the same patients come up for every model, epsilon, label and group that shares a split, whatever
the block size or the number of threads: differences are paired. Three kinds of quantity can be
asked for: totals (sums over rows, linear in the patients' weights), statistics that are any
function of the weights (`ranking.py`, `curves.py`) and series derived from both. Intervals are
percentile intervals.

Used by discrimination, fairness, calibration and comparison; knows nothing of labels or groups.

Shapes: N rows, P patients, B replicates of a block, R replicates in all, K totals.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from joblib import cpu_count
from scipy import sparse

BLOCK = 32  # replicates at a time; 64 was no faster on two cores and takes twice the memory
MAX_DRAWS = 5  # gives a series up after so many times the replicates asked for

Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """A quantity on the table itself and on resamples of its patients.

    Args:
        point: the value on the table, a scalar [] or a curve [K]; NaN where it does not exist.
        values_R: the first `num_replicates` values that exist, in the order drawn, [R] or
            [K, R]; fewer when the resamples ran out.
        num_redrawn: resamples that were passed over because the quantity did not exist there.
        is_complete: whether there are as many values as were asked for.
    """

    point: np.ndarray
    values_R: np.ndarray
    num_redrawn: int
    is_complete: bool

    def interval(self, confidence: float = 0.95, *, reflected: bool = False) -> np.ndarray:
        """The percentile interval as [2] or [2, K], or its reflection about the point.

        The reflected ("basic") interval suits a quantity that resampling shifts to one side.
        """
        tail = (1 - confidence) / 2
        low, high = np.quantile(self.values_R, [tail, 1 - tail], axis=-1)
        if reflected:
            low, high = 2 * self.point - high, 2 * self.point - low
        return np.stack([low, high])


@dataclass(frozen=True, kw_only=True)
class _Derived:
    inputs: tuple[Hashable, ...]
    combine: Callable[..., np.ndarray]


class PatientBootstrap:
    """Collects quantities of one table, then computes all of them on the same resamples.

    Args:
        patient_ids: the patient of each row, length N.
        num_replicates: R; 2,000 or more for reported intervals.
        seed: the same seed on the same patients gives the same resamples.
        threads: worker threads; all cores of this process when left out. Never changes a result.
    """

    def __init__(
        self,
        *,
        patient_ids: Sequence[Hashable] | np.ndarray,
        num_replicates: int,
        seed: int,
        threads: int | None = None,
    ) -> None:
        unique, self.patients_N = np.unique(np.asarray(patient_ids, str), return_inverse=True)
        self.num_patients = len(unique)
        self.num_replicates = num_replicates
        self._seed = seed
        self._threads = threads or cpu_count()
        self._totals: dict[Hashable, tuple[np.ndarray, np.ndarray]] = {}
        self._statistics: dict[Hashable, Statistic] = {}
        self._derived: dict[Hashable, _Derived] = {}

    def add_total(self, key: Hashable, values_N: np.ndarray) -> None:
        """The sum of `values_N` (0 for rows that do not take part) over the rows drawn."""
        totals_P = np.bincount(
            self.patients_N, weights=values_N.astype(float), minlength=self.num_patients
        )
        patients = np.flatnonzero(totals_P)
        self._totals[key] = (patients, totals_P[patients])

    def add_statistic(self, key: Hashable, statistic: Statistic) -> None:
        """A function of float32 patient weights [P, B] that returns [B] or [K, B].

        NaN marks a resample on which it does not exist; it is redrawn.
        """
        self._statistics[key] = statistic

    def add_derived(
        self, key: Hashable, inputs: Sequence[Hashable], combine: Callable[..., np.ndarray]
    ) -> None:
        """A function of totals, statistics or other derived series.

        It gets one array [B] per input and returns [B], or [K, B] for a curve. NaN or infinity
        marks a resample on which the quantity does not exist; it is redrawn.
        """
        self._derived[key] = _Derived(inputs=tuple(inputs), combine=combine)

    def run(self) -> dict[Hashable, Draws]:
        """Draws until every statistic and derived series has its replicates."""
        keys = [*self._statistics, *self._derived]
        ones_P1 = np.ones((self.num_patients, 1), np.float32)
        points = self._evaluate(ones_P1, self._inputs(keys))
        collected: dict[Hashable, list[np.ndarray]] = {key: [] for key in keys}
        pending = keys
        for start in range(0, MAX_DRAWS * self.num_replicates, self.num_replicates):
            values = self._replicate(range(start, start + self.num_replicates), pending)
            for key in pending:
                collected[key].append(self._value(key, values))
            pending = [key for key in pending if not self._is_complete(collected[key])]
            if not pending:
                break
        return {key: self._draws(self._value(key, points)[..., 0], collected[key]) for key in keys}

    def point(self, key: Hashable) -> float:
        """A registered quantity on the table itself."""
        ones_P1 = np.ones((self.num_patients, 1), np.float32)
        return float(self._value(key, self._evaluate(ones_P1, self._inputs([key])))[0])

    def weights(self, replicates: range) -> np.ndarray:
        """How often each patient occurs in each replicate, float32 [P, B]."""
        weights_BP = np.empty((len(replicates), self.num_patients), np.float32)
        for row, replicate in enumerate(replicates):
            generator = np.random.default_rng([self._seed, replicate])
            drawn_P = generator.integers(self.num_patients, size=self.num_patients)
            weights_BP[row] = np.bincount(drawn_P, minlength=self.num_patients)
        return np.ascontiguousarray(weights_BP.T)

    def _inputs(self, keys: Sequence[Hashable]) -> list[Hashable]:
        """The totals and statistics that these quantities rest on, each once."""
        found: dict[Hashable, None] = {}
        stack = list(keys)
        while stack:
            key = stack.pop()
            if key in self._derived:
                stack.extend(self._derived[key].inputs)
            else:
                found[key] = None
        return list(found)

    def _value(self, key: Hashable, values: dict[Hashable, np.ndarray]) -> np.ndarray:
        """A quantity from the inputs in `values`, which also keeps what is derived on the way."""
        if key not in values:
            derived = self._derived[key]
            inputs = [self._value(name, values) for name in derived.inputs]
            with np.errstate(divide="ignore", invalid="ignore"):
                result = derived.combine(*inputs)
            values[key] = np.where(np.isfinite(result), result, np.nan)
        return values[key]

    def _replicate(self, replicates: range, keys: Sequence[Hashable]) -> dict[Hashable, np.ndarray]:
        inputs = self._inputs(keys)
        blocks = [replicates[start : start + BLOCK] for start in range(0, len(replicates), BLOCK)]
        totals_KP = self._total_matrix(inputs)

        def compute(block: range) -> dict[Hashable, np.ndarray]:
            return self._evaluate(self.weights(block), inputs, totals_KP)

        with ThreadPoolExecutor(self._threads) as pool:
            parts = list(pool.map(compute, blocks))
        return {name: np.concatenate([part[name] for part in parts], axis=-1) for name in inputs}

    def _evaluate(
        self,
        weights_PB: np.ndarray,
        inputs: Sequence[Hashable],
        totals_KP: sparse.csr_array | None = None,
    ) -> dict[Hashable, np.ndarray]:
        if totals_KP is None:
            totals_KP = self._total_matrix(inputs)
        sums_KB = totals_KP @ weights_PB.astype(np.float64)
        names = [name for name in inputs if name in self._totals]
        values: dict[Hashable, np.ndarray] = dict(zip(names, sums_KB, strict=True))
        for name in inputs:
            if name in self._statistics:
                values[name] = self._statistics[name](weights_PB)
        return values

    def _total_matrix(self, inputs: Sequence[Hashable]) -> sparse.csr_array:
        rows = [self._totals[name] for name in inputs if name in self._totals]
        empty = (np.zeros(0, np.int64), np.zeros(0))
        patients, values = (np.concatenate(part) for part in zip(empty, *rows, strict=True))
        ends = np.cumsum([0, *(len(row[0]) for row in rows)])
        return sparse.csr_array((values, patients, ends), shape=(len(rows), self.num_patients))

    def _is_complete(self, parts: list[np.ndarray]) -> bool:
        return sum(int(_exists(part).sum()) for part in parts) >= self.num_replicates

    def _draws(self, point: np.ndarray, parts: list[np.ndarray]) -> Draws:
        values_R = np.concatenate(parts, axis=-1)
        exists = np.flatnonzero(_exists(values_R))[: self.num_replicates]
        is_complete = len(exists) == self.num_replicates
        num_seen = int(exists[-1]) + 1 if is_complete else values_R.shape[-1]
        return Draws(
            point=point,
            values_R=values_R[..., exists],
            num_redrawn=num_seen - len(exists),
            is_complete=is_complete,
        )


def _exists(values_R: np.ndarray) -> np.ndarray:
    return ~np.isnan(values_R).any(axis=tuple(range(values_R.ndim - 1)))
