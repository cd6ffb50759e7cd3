"""Which images of one set are images of another: by hash, and by neighbours and registration.

Neighbours of two different encoders become candidates, asked with turned and enlarged copies of
each image, since an encoder alone cannot tell two people from one picture. Each candidate is then
laid over the image (`registration`), and only what fits in its detail is flagged.

Source: METHODS P8 (Xu et al. 2026, arXiv 2606.10066) for neighbours of two encoders with controls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from dpmed.data.overlap.descriptor import gradient_descriptor, turned
from dpmed.data.overlap.pictures import Pictures
from dpmed.data.overlap.registration import Query, coarse_spectrum

# Encodes canonical images (N, H, W) as unit vectors (N, D).
Encoder = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

NUM_NEIGHBOURS = 10  # of each encoder
GATE = 0.80  # coarse correlation: planted duplicates reach .92, neighbours of other people .80
THRESHOLD = 0.80  # refined correlation: planted duplicates reach .94, other people .68
# A picture that was turned with its frame enlarged shrinks in the frame by up to 9 %.
POSES = (
    (0.0, 1.0), (-2.5, 1.0), (2.5, 1.0), (-2.5, 1.04), (2.5, 1.04), (-5.0, 1.0), (5.0, 1.0),
    (-5.0, 1.08), (5.0, 1.08), (-2.5, 0.96), (2.5, 0.96), (-5.0, 0.93), (5.0, 0.93),
)  # fmt: skip
_CACHED_SPECTRA = 20_000  # 17 KB each
_COLUMNS = ("image", "other", "kind", "score", "overlap", "scale", "degrees", "found_by")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The set that is searched, encoded once.

    Args:
        pictures: its images.
        encoders: by name.
        vectors: unit vectors (N, D) by encoder.
    """

    pictures: Pictures
    encoders: Mapping[str, Encoder]
    vectors: Mapping[str, NDArray[np.float32]]


def encode_corpus(pictures: Pictures, encoders: Mapping[str, Encoder]) -> Corpus:
    """Encodes the set that will be searched."""
    vectors = {name: encode(pictures.images_NHW) for name, encode in encoders.items()}
    return Corpus(pictures=pictures, encoders=encoders, vectors=vectors)


def gradient_encoder(images_NHW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The hand-made encoder, image by image."""
    return np.stack([gradient_descriptor(image) for image in images_NHW])


def find_pairs(queries: Pictures, corpus: Corpus, *, title: str) -> pd.DataFrame:
    """Every flagged pair, one row each.

    Args:
        queries: the images to look for.
        corpus: where they are looked for.
        title: shown on the progress bar.

    Returns:
        `image` and `other` (row numbers of queries and corpus), `kind` ("exact" or "near"),
        `score`, `overlap`, `scale`, `degrees`, `found_by` (encoders that proposed the pair).
    """
    by_hash: dict[str, list[int]] = {}
    for row, name in enumerate(corpus.pictures.hashes):
        by_hash.setdefault(name, []).append(row)

    @functools.lru_cache(_CACHED_SPECTRA)
    def spectrum(row: int) -> NDArray[np.complex64]:
        return coarse_spectrum(corpus.pictures.images_NHW[row])

    found = []
    for image in tqdm(range(len(queries)), desc=title, unit="image", dynamic_ncols=True):
        exact = by_hash.get(queries.hashes[image], [])
        found += [(image, row, "exact", 1.0, 1.0, 1.0, 0.0, "pixel hash") for row in exact]
        query = Query(queries.images_NHW[image])
        for row, names in _candidates(queries.images_NHW[image], corpus).items():
            if row in exact:
                continue
            peak, start = query.roughly(spectrum(row))
            if peak < GATE:
                continue
            match = query.match(corpus.pictures.images_NHW[row], start)
            if match.score >= THRESHOLD:
                measured = (match.score, match.overlap, match.scale, match.degrees)
                found.append((image, row, "near", *measured, " and ".join(names)))
    return pd.DataFrame(found, columns=list(_COLUMNS))


def _candidates(image: NDArray[np.uint8], corpus: Corpus) -> dict[int, list[str]]:
    """Rows of the corpus that an encoder finds close, with the encoders' names."""
    copies = np.stack([turned(image, *pose) for pose in POSES])
    candidates: dict[int, list[str]] = {}
    for name, encode in corpus.encoders.items():
        closeness = (encode(copies) @ corpus.vectors[name].T).max(axis=0)
        count = min(NUM_NEIGHBOURS, len(closeness))
        for row in np.argpartition(-closeness, count - 1)[:count]:
            candidates.setdefault(int(row), []).append(name)
    return candidates
