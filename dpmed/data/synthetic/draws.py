"""Random numbers that belong to a name, so that no picture depends on its neighbours in a batch.

Every patient and every image has its own generator, keyed by (seed, name). A block of images takes
one row of uniforms each and shapes them in parallel. These streams are seeded and public: nothing
here may be used for privacy noise or sampling.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri


def generator_for(seed: int, name: str) -> np.random.Generator:
    """The generator of one named thing.

    Args:
        seed: seed of the whole data set.
        name: for example "image/synthetic/000123/2".
    """
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


class Draws:
    """Hands out one column of uniforms after another, one row for each named thing.

    The order of the calls is the identity of a number: every call takes a column for all rows,
    whether or not the caller needs it for all of them.

    Args:
        generators: one generator a row.
        num_columns: how many numbers each row may take.
    """

    def __init__(self, generators: Sequence[np.random.Generator], num_columns: int) -> None:
        self._uniforms = np.stack([generator.random(num_columns) for generator in generators])
        self._next = 0

    def uniform(self, low: np.ndarray | float = 0.0, high: np.ndarray | float = 1.0) -> np.ndarray:
        """Uniform numbers between `low` and `high` (scalars or one a row), shape (rows,)."""
        column = self._uniforms[:, self._next]
        self._next += 1
        return low + (np.asarray(high) - low) * column

    def normal(self, mean: np.ndarray | float = 0.0, sd: np.ndarray | float = 1.0) -> np.ndarray:
        """Normal numbers, cut at 2.5 standard deviations so that no body is impossible."""
        return mean + np.asarray(sd) * np.clip(ndtri(self.uniform()), -2.5, 2.5)

    def flag(self, probability: np.ndarray | float) -> np.ndarray:
        """True with the given probability (a scalar or one a row), shape (rows,)."""
        return self.uniform() < probability
