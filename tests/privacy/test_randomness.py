"""The secret stream: reproducible, independent by purpose and step, normal; it keeps its key."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from scipy import stats

from dpmed.errors import UserError
from dpmed.privacy import randomness
from dpmed.privacy.randomness import SecretStream

KEY = bytes(range(32))


def test_equal_key_purpose_and_step_give_equal_numbers() -> None:
    one, other = SecretStream.from_key(KEY), SecretStream.from_key(KEY)
    for draw in ("integers64", "uniform", "normal"):
        np.testing.assert_array_equal(
            getattr(one, draw)("noise", 7, 1001), getattr(other, draw)("noise", 7, 1001)
        )


def test_the_output_of_this_version_is_pinned() -> None:
    """A change here breaks the resumption of every run that is under way."""
    stream = SecretStream.from_key(KEY)
    assert stream.integers64("noise", 0, 2).tolist() == PINNED_INTEGERS
    np.testing.assert_allclose(stream.normal("noise", 0, 2), PINNED_NORMALS, rtol=1e-14)


PINNED_INTEGERS = [2052282244053650455, 9649362157187351757]
PINNED_NORMALS = [0.4986943883822168, 0.21257400269711565]


@pytest.mark.parametrize("draw", ["integers64", "uniform", "normal"])
def test_a_longer_draw_starts_with_the_shorter_one(draw: str) -> None:
    function = getattr(SecretStream.from_key(KEY), draw)
    # 40,001 normals reach into the second chunk of pairs.
    np.testing.assert_array_equal(function("noise", 1, 40_001)[:33], function("noise", 1, 33))


def test_keys_purposes_steps_and_kinds_are_independent() -> None:
    """N = 20,000 pairs each: |r| > .03 happens by chance with probability 2e-5 in each pair."""
    stream = SecretStream.from_key(KEY)
    draws = [
        stream.normal("noise", 0, 20_000),
        stream.normal("noise", 1, 20_000),
        stream.normal("noise/2", 0, 20_000),
        SecretStream.from_key(bytes(32)).normal("noise", 0, 20_000),
        stream.uniform("noise", 0, 20_000),
        stream.integers64("noise", 0, 20_000).astype(float),
    ]
    correlations = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlations).max() < 0.03


def test_ambiguous_purposes_and_steps_do_not_collide() -> None:
    stream = SecretStream.from_key(KEY)
    heads = {
        int(stream.integers64(purpose, step, 1)[0])
        for purpose in ("a", "a1", "1a", "")
        for step in (0, 1, 256, 2**40)
    }
    assert len(heads) == 16


def test_normals_are_normal() -> None:
    """Kolmogorov-Smirnov, n = 400,000, p < 1e-4 fails: one fair key in 10,000; the key is fixed."""
    normals = SecretStream.from_key(KEY).normal("noise", 3, 400_000)
    assert stats.kstest(normals, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(normals[0::2] ** 2, normals[1::2] ** 2)[0, 1]) < 0.01


def test_the_tail_is_not_cut_at_53_bits() -> None:
    """The smallest 128-bit integer gives the largest radius, 13.4; 53 bits would end at 8.6."""
    out = np.empty((1, 2))
    randomness._box_muller(np.zeros((1, 3), dtype=np.uint64), out=out)
    assert out[0, 0] == pytest.approx(np.sqrt(2 * 129 * np.log(2)), rel=1e-12)
    randomness._box_muller(np.full((1, 3), 2**64 - 1, dtype=np.uint64), out=out)
    assert np.isfinite(out).all()
    assert np.abs(out).max() < 1e-7


def test_uniforms_never_reach_0_or_1() -> None:
    stream = SecretStream.from_key(KEY)
    for word in (0, 2**64 - 1):
        stream_like = _ConstantWords(word)
        value = SecretStream.uniform(stream_like, "x", 0, 1)[0]  # type: ignore[arg-type]
        assert 0 < value < 1
    uniform = stream.uniform("x", 0, 100_000)
    assert stats.kstest(uniform, "uniform").pvalue > 1e-4


class _ConstantWords:
    def __init__(self, word: int) -> None:
        self.word = word

    def _words(self, kind: str, purpose: str, step: int, count: int) -> np.ndarray:
        return np.full(count, self.word, dtype=np.uint64)


def test_torch_and_numpy_seeds_change_nothing() -> None:
    import torch

    stream = SecretStream.from_key(KEY)
    torch.manual_seed(0)
    first = stream.normal("noise", 0, 100)
    torch.manual_seed(1)
    np.testing.assert_array_equal(first, stream.normal("noise", 0, 100))
    assert not np.array_equal(first, SecretStream.from_os().normal("noise", 0, 100))


def test_the_key_does_not_leak() -> None:
    stream = SecretStream.from_key(KEY)
    assert KEY.hex() not in repr(stream) + str(stream)
    assert stream.key_id in repr(stream)
    assert stream.key_id != SecretStream.from_key(bytes(32)).key_id
    assert stream.key_id not in (KEY.hex()[:32], stream.integers64("x", 0, 2).tobytes().hex())
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled"):
            leak(stream)


def test_only_a_key_of_the_system_counts_as_secret() -> None:
    assert SecretStream.from_key(KEY).injected
    assert not SecretStream.from_os().injected


def test_a_short_key_is_refused() -> None:
    with pytest.raises(UserError, match="32 bytes; this one has 16"):
        SecretStream.from_key(bytes(16))
