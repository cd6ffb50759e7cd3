"""Secret randomness: output = CSPRNG(256-bit key from the operating system, purpose, step).

Noise, Poisson draws and the choice of a patient's images come from here and from nowhere else.
The key stands outside the checkpoints (`private/`, mode 0600): whoever holds it can subtract the
noise. A stream has no position, so a run resumes at any step and replays it bit for bit.

This module must not use torch's or NumPy's generators, and must not log or print a key. Seeded,
harmless randomness (initialisation, bootstrap) is a different type and lives elsewhere.
"""

from __future__ import annotations

import hmac
import math
import os
from collections.abc import Callable
from typing import NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from dpmed.errors import UserError

KEY_BYTES = 32
_DOMAIN = b"dpmed.privacy.randomness/1"
# Work arrays of 2^14 pairs stay in the second-level cache: 2 x faster than one pass over all.
_PAIRS_A_CHUNK = 1 << 14


class SecretStream:
    """A keyed function from (purpose, step) to random numbers.

    Every (kind of number, purpose, step) has its own AES-256-CTR keystream, under a subkey that
    HMAC-SHA256 derives from the key. The same three give the same numbers, so two draws that must
    be independent need different purposes; a longer draw starts with the shorter one.

    Guarantee:
        While the key is secret and AES-256 and HMAC-SHA256 are pseudorandom, no efficient observer
        tells the output from independent uniform bits.

    Example:
        >>> stream = SecretStream.from_os()
        >>> stream.normal("noise", step=3, count=2).shape
        (2,)
    """

    __slots__ = ("__key", "_injected")

    def __init__(self, key: bytes, *, injected: bool) -> None:
        """Use `from_os`, or `from_key` in tests.

        Args:
            key: 32 bytes.
            injected: whether somebody chose the key; such a run is not private.
        """
        if len(key) != KEY_BYTES:
            raise UserError(f"A noise key has {KEY_BYTES} bytes; this one has {len(key)}.")
        self.__key = bytes(key)
        self._injected = injected

    @classmethod
    def from_os(cls) -> SecretStream:
        """A stream under a fresh key from the operating system."""
        return cls(os.urandom(KEY_BYTES), injected=False)

    @classmethod
    def from_key(cls, key: bytes) -> SecretStream:
        """A stream under a key that somebody chose: reproducible, hence not private."""
        return cls(key, injected=True)

    @property
    def injected(self) -> bool:
        """True where the key did not come from the operating system: the run is not private."""
        return self._injected

    @property
    def key_id(self) -> str:
        """32 hexadecimal digits that commit to the key and do not reveal it; safe to log."""
        return hmac.digest(self.__key, _DOMAIN + b"/key-id", "sha256").hex()[:32]

    def integers64(self, purpose: str, step: int, count: int) -> np.ndarray:
        """Uniform 64-bit integers, uint64 (count,)."""
        return self._words("integers64", purpose, step, count)

    def uniform(self, purpose: str, step: int, count: int) -> np.ndarray:
        """Uniform numbers strictly between 0 and 1, float64 (count,), multiples of 2^-53."""
        words = self._words("uniform", purpose, step, count)
        # 52 bits and a half: k + 1/2 is exact in float64, so neither 0 nor 1 can be rounded to.
        return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def normal(self, purpose: str, step: int, count: int) -> np.ndarray:
        """Standard normals, float64 (count,).

        Box-Muller: radius sqrt(-2 ln u) with u = (128-bit integer + 1/2) / 2^128 and an angle of
        53 bits. No value exceeds 13.4; the normal mass cut off is 2^-128 a pair, so that 10^13
        draws are within 10^-25 of normal in total variation, which no delta notices.

        Guarantee:
            The values are float64 and hence discrete: the guarantee of the Gaussian mechanism
            holds for real numbers, and this gap (Mironov 2012, CCS, sec. 4) is in the statement.
        """
        num_pairs = (count + 1) // 2
        normals = np.empty((num_pairs, 2), dtype=np.float64)
        keystream = self._keystream("normal", purpose, step)
        for start in range(0, num_pairs, _PAIRS_A_CHUNK):
            chunk = normals[start : start + _PAIRS_A_CHUNK]
            _box_muller(keystream(3 * len(chunk)).reshape(-1, 3), out=chunk)
        return normals.reshape(-1)[:count]

    def export_key(self) -> bytes:
        """The secret itself, for `keys.save_key` alone."""
        return self.__key

    def _words(self, kind: str, purpose: str, step: int, count: int) -> np.ndarray:
        assert count >= 0, f"count={count} is negative"
        return self._keystream(kind, purpose, step)(count)

    def _keystream(self, kind: str, purpose: str, step: int) -> Callable[[int], np.ndarray]:
        """A function that returns the next `count` words, uint64, of one keystream."""
        assert step >= 0, f"step={step} is negative"
        subkey = hmac.digest(self.__key, _message(kind, purpose, step), "sha256")
        # Counter 0 is safe because no other (kind, purpose, step) shares the subkey.
        encryptor = Cipher(algorithms.AES256(subkey), modes.CTR(bytes(16))).encryptor()

        def next_words(count: int) -> np.ndarray:
            return np.frombuffer(encryptor.update(bytes(8 * count)), dtype="<u8")

        return next_words

    def __repr__(self) -> str:
        return f"SecretStream(key_id={self.key_id!r}, injected={self._injected})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A SecretStream holds a secret key: it is never pickled or copied.")


def _message(kind: str, purpose: str, step: int) -> bytes:
    """Length-prefixed, so that no two different triples give the same bytes."""
    parts = [_DOMAIN, kind.encode(), purpose.encode(), step.to_bytes(16, "little")]
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def _box_muller(words_P3: np.ndarray, *, out: np.ndarray) -> None:
    """Write the two normals of every row of three 64-bit words into `out` (P, 2)."""
    high, low, turn = words_P3.T
    u = high.astype(np.float64)
    u += (low.astype(np.float64) + 0.5) * 2.0**-64
    u *= 2.0**-64
    radius = np.sqrt(-2.0 * np.log(u))
    angle = (turn >> np.uint64(11)).astype(np.float64) * (2.0 * math.pi * 2.0**-53)
    np.multiply(radius, np.cos(angle), out=out[:, 0])
    np.multiply(radius, np.sin(angle), out=out[:, 1])
