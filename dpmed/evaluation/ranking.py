"""AUROC and average precision as functions of patient weights, for many resamples at once.

A resample of patients changes no score, so a label is sorted once; each resample then only
changes how often a patient's images count. The images of one class (the rarer, for AUROC) are the
pivots, grouped by distinct score; the others are counted in the gaps between pivots. Both are
sparse counts [pivot groups, patients], and one sparse product with the weights [patients,
resamples] plus one cumulative sum gives the exact statistic of every resample, ties included.
Used by `bootstrap.py`; knows nothing of labels' names or groups.

Shapes: N images, P patients, G pivot groups, B resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

CHUNK_GROUPS = 2048  # 2,048 groups x 32 resamples x 4 bytes stay in a core's level-2 cache
LARGEST_EXACT = 2**24  # float32 counts integers exactly up to here


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """Consecutive pivot groups: their pivots, the others below them, the others tied with them."""

    pivots_GP: sparse.csr_array
    passed_GP: sparse.csr_array
    tied_rows: np.ndarray
    tied_GP: sparse.csr_array


class WeightedAuroc:
    """AUROC of one label over the rows given, as a function of patient weights.

    Args:
        scores_N: finite scores.
        positive_N: boolean truth.
        patients_N: patient index of each row, below `num_patients`.
        num_patients: P, of the whole table.

    Guarantee:
        Equal to the Mann-Whitney statistic of the table in which every row is repeated as often
        as its patient's weight says, ties counted one half, up to float64 rounding.
    """

    def __init__(
        self,
        *,
        scores_N: np.ndarray,
        positive_N: np.ndarray,
        patients_N: np.ndarray,
        num_patients: int,
    ) -> None:
        assert len(scores_N) < LARGEST_EXACT // 2, "too many rows for exact float32 counts"
        self._positives_are_pivots = positive_N.sum() * 2 <= len(positive_N)
        pivot_N = positive_N if self._positives_are_pivots else ~positive_N
        self._chunks = list(_chunks(scores_N, pivot_N, patients_N, num_patients))
        self._classes_2P = _sparse_counts((~pivot_N).astype(int), patients_N, (2, num_patients))

    def __call__(self, weights_PB: np.ndarray) -> np.ndarray:
        """The AUROC of each resample, [B]; NaN where a class is absent.

        Args:
            weights_PB: float32 multiplicities.
        """
        pairs_B = np.zeros(weights_PB.shape[1])
        below_B = np.zeros(weights_PB.shape[1], np.float32)
        for chunk in self._chunks:
            pivots_GB = chunk.pivots_GP @ weights_PB
            below_GB = _running_total(chunk.passed_GP @ weights_PB, below_B)
            pairs_B += np.multiply(pivots_GB, below_GB, dtype=np.float64).sum(axis=0)
            if len(chunk.tied_rows):
                tied_GB = chunk.tied_GP @ weights_PB
                tied_GB *= 0.5
                pairs_B += np.multiply(pivots_GB[chunk.tied_rows], tied_GB, dtype=np.float64).sum(
                    axis=0
                )
        num_pivots_B, num_others_B = (self._classes_2P @ weights_PB).astype(np.float64)
        pairs_B = _divide(pairs_B, num_pivots_B * num_others_B)
        return pairs_B if self._positives_are_pivots else 1 - pairs_B


class WeightedAveragePrecision:
    """Average precision of one label, as a function of patient weights.

    Arguments as for `WeightedAuroc`.

    Guarantee:
        Equal to the sum over distinct thresholds of precision times the gain in recall (the
        definition of scikit-learn's `average_precision_score`) on the repeated rows.
    """

    def __init__(
        self,
        *,
        scores_N: np.ndarray,
        positive_N: np.ndarray,
        patients_N: np.ndarray,
        num_patients: int,
    ) -> None:
        assert len(scores_N) < LARGEST_EXACT // 2, "too many rows for exact float32 counts"
        # Descending scores: what has been passed is called positive at this threshold.
        self._chunks = list(_chunks(-scores_N, positive_N, patients_N, num_patients))

    def __call__(self, weights_PB: np.ndarray) -> np.ndarray:
        """The average precision of each resample, [B]; NaN without positives."""
        sum_B = np.zeros(weights_PB.shape[1])
        false_B = np.zeros(weights_PB.shape[1], np.float32)
        true_B = np.zeros(weights_PB.shape[1], np.float32)
        for chunk in self._chunks:
            pivots_GB = chunk.pivots_GP @ weights_PB
            true_GB = _running_total(pivots_GB.copy(), true_B)
            false_GB = _running_total(chunk.passed_GP @ weights_PB, false_B)
            if len(chunk.tied_rows):
                false_GB[chunk.tied_rows] += chunk.tied_GP @ weights_PB
            called_GB = np.add(true_GB, false_GB, dtype=np.float64)
            called_GB[called_GB == 0] = 1
            sum_B += (pivots_GB * (true_GB / called_GB)).sum(axis=0)
        return _divide(sum_B, true_B)


def _chunks(
    scores_N: np.ndarray, pivot_N: np.ndarray, patients_N: np.ndarray, num_patients: int
) -> Iterator[_Chunk]:
    values_G, group_N = np.unique(scores_N[pivot_N], return_inverse=True)
    others = scores_N[~pivot_N]
    passed_N = np.searchsorted(values_G, others, side="right")
    at_N = np.searchsorted(values_G, others, side="left")
    tied_N = passed_N > at_N
    shape = (len(values_G), num_patients)
    pivots_GP = _sparse_counts(group_N, patients_N[pivot_N], shape)
    inside = passed_N < len(values_G)  # beyond the last pivot nothing is compared
    passed_GP = _sparse_counts(passed_N[inside], patients_N[~pivot_N][inside], shape)
    tied_GP = _sparse_counts(at_N[tied_N], patients_N[~pivot_N][tied_N], shape)
    for start in range(0, len(values_G), CHUNK_GROUPS):
        rows = slice(start, min(start + CHUNK_GROUPS, len(values_G)))
        tied_rows = np.flatnonzero(np.diff(tied_GP.indptr[rows.start : rows.stop + 1]))
        yield _Chunk(
            pivots_GP=pivots_GP[rows],
            passed_GP=passed_GP[rows],
            tied_rows=tied_rows,
            tied_GP=tied_GP[rows][tied_rows],
        )


def _sparse_counts(
    rows: np.ndarray, patients: np.ndarray, shape: tuple[int, int]
) -> sparse.csr_array:
    # Sparse even where a dense product would do: idle BLAS threads spin and slow the pool down.
    ones = np.ones(len(rows), np.float32)
    return sparse.coo_array((ones, (rows, patients)), shape=shape).tocsr()


def _running_total(counts_GB: np.ndarray, carry_B: np.ndarray) -> np.ndarray:
    """Cumulative sums over groups, in place; `carry_B` brings them from chunk to chunk."""
    counts_GB[0] += carry_B
    np.cumsum(counts_GB, axis=0, out=counts_GB)
    carry_B[:] = counts_GB[-1]
    return counts_GB


def _divide(numerator_B: np.ndarray, denominator_B: np.ndarray) -> np.ndarray:
    result_B = np.full(len(numerator_B), np.nan)
    np.divide(numerator_B, denominator_B, out=result_B, where=denominator_B > 0)
    return result_B
