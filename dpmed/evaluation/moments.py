"""Count, mean and scatter of rows that never are in memory together.

In float64 and centred batch by batch: raw second moments in float32 lose the small eigenvalues
(37 of 256 came out negative on 120,000 rows). Moments of disjoint rows can be merged, on one
machine or across ranks, and a part can be taken out again, which is what a jackknife needs.
Shapes: B rows of a batch, D features.

Source: Chan, Golub and LeVeque 1983, the pairwise update.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(kw_only=True)
class Moments:
    """Moments of a set of rows; `add` grows them in place, everything else returns new ones.

    Args:
        count: number of rows.
        mean_D: their mean.
        scatter_DD: sum of outer products of the rows' distances from the mean.
    """

    count: int
    mean_D: np.ndarray
    scatter_DD: np.ndarray

    @classmethod
    def empty(cls, num_features: int) -> Moments:
        """Of no rows."""
        return cls(
            count=0,
            mean_D=np.zeros(num_features),
            scatter_DD=np.zeros((num_features, num_features)),
        )

    def add(self, rows_BD: np.ndarray) -> None:
        """Takes in at least one row, in float64."""
        batch_mean_D = rows_BD.mean(axis=0)
        apart_D = batch_mean_D - self.mean_D
        total = self.count + len(rows_BD)
        # The update c'c + (n b / (n + b)) d d' in one product, d being one more row.
        between_D = np.sqrt(self.count * len(rows_BD) / total) * apart_D
        centred_BD = np.concatenate([rows_BD - batch_mean_D, between_D[None]])
        self.scatter_DD += centred_BD.T @ centred_BD
        self.mean_D = self.mean_D + (len(rows_BD) / total) * apart_D
        self.count = total

    def merged(self, other: Moments) -> Moments:
        """Of the rows of both."""
        if not other.count:
            return self
        return self._combined(other, sign=1)

    def without(self, part: Moments) -> Moments:
        """Of the rows that are not in `part`, which must be some of these and not all."""
        assert 0 <= part.count < self.count, "a part must leave something"
        if not part.count:
            return self
        return self._combined(part, sign=-1)

    @property
    def covariance(self) -> np.ndarray:
        """Scatter divided by the count."""
        return self.scatter_DD / self.count

    @property
    def second_moment(self) -> np.ndarray:
        """Mean outer product of the rows themselves."""
        return self.covariance + np.outer(self.mean_D, self.mean_D)

    def features(self, start: int, stop: int) -> Moments:
        """Of some of the features only."""
        return Moments(
            count=self.count,
            mean_D=self.mean_D[start:stop],
            scatter_DD=self.scatter_DD[start:stop, start:stop],
        )

    def _combined(self, other: Moments, *, sign: int) -> Moments:
        count = self.count + sign * other.count
        apart_D = other.mean_D - self.mean_D
        # n b / (n + b) when merging; taking out is the same identity with a negative count.
        weight = sign * self.count * other.count / count
        scatter_DD = np.outer(apart_D, weight * apart_D)
        scatter_DD += self.scatter_DD
        if sign > 0:
            scatter_DD += other.scatter_DD
        else:
            scatter_DD -= other.scatter_DD
        return Moments(
            count=count,
            mean_D=self.mean_D + sign * (other.count / count) * apart_D,
            scatter_DD=scatter_DD,
        )
