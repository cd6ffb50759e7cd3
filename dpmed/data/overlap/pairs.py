"""Which images of one set are images of another: by hash, and by neighbours and registration.

Neighbours of two different encoders become candidates, asked with turned and enlarged copies of
each image, since an encoder alone cannot tell two people from one picture. Each candidate is then
laid over the image (`registration`), and only what fits in its detail is flagged.

Source: METHODS P8 (Xu et al. 2026, arXiv 2606.10066) for neighbours of two encoders with controls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from dpmed.data.overlap.contrast import view
from dpmed.data.overlap.descriptor import gradient_descriptor, turned
from dpmed.data.overlap.pictures import Pictures
from dpmed.data.overlap.registration import Match, Query, coarse_spectrum

# Encodes images (N, SIZE, SIZE) as unit vectors (N, D).
Encoder = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

Zooms = Callable[[int], tuple[float, float]]

NUM_NEIGHBOURS = 8  # of each encoder
GATE = 0.80  # coarse correlation: planted duplicates reach .92, neighbours of other people .80
THRESHOLD = 0.80  # refined correlation: planted duplicates reach .94, other people .68
# A picture that was turned with its frame enlarged shrinks in the frame by up to 9 %.
POSES = (
    (0.0, 1.0), (-2.5, 1.0), (2.5, 1.0), (-2.5, 1.04), (2.5, 1.04), (-5.0, 1.0), (5.0, 1.0),
    (-5.0, 1.08), (5.0, 1.08), (-2.5, 0.96), (2.5, 0.96), (-5.0, 0.93), (5.0, 0.93),
)  # fmt: skip
# Zooms at which the middle of one picture may be the whole of another. Encoders tell 4 % apart and
# ask for all of them; registration bridges 12 % and starts from the nearest of three.
ZOOMS = (1.15, 1.24, 1.34, 1.45, 1.57, 1.70, 1.84, 2.0)
STARTS = (1.26, 1.59, 2.0)
ZOOM_TURNS = (-4.0, 0.0, 4.0)
NUM_ZOOMED = 4  # neighbours in each direction, of the gradient encoder
_CACHED_SPECTRA = 20_000  # 17 KB each
_COLUMNS = ("image", "other", "kind", "score", "overlap", "scale", "degrees", "found_by")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The set that is searched, encoded once.

    Args:
        pictures: its images.
        encoders: by name.
        vectors: unit vectors (N, D) by encoder.
        zoomed: gradient descriptors of the middle of each image, one (N, D) for each of ZOOMS.
    """

    pictures: Pictures
    encoders: Mapping[str, Encoder]
    vectors: Mapping[str, NDArray[np.float32]]
    zoomed: Sequence[NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A picture of the corpus that may be the query, or the middle of one of them the other.

    Args:
        row: of the corpus.
        query_zoom: which middle of the query is compared.
        other_zoom: likewise of the other picture.
    """

    row: int
    query_zoom: float
    other_zoom: float


def encode_corpus(pictures: Pictures, encoders: Mapping[str, Encoder]) -> Corpus:
    """Encodes the set that will be searched."""
    images_NHW = np.stack([view(image) for image in pictures.images_NHW])
    return Corpus(
        pictures=pictures,
        encoders=encoders,
        vectors={name: encode(images_NHW) for name, encode in encoders.items()},
        zoomed=[
            gradient_encoder([view(image, zoom=zoom) for image in pictures.images_NHW])
            for zoom in ZOOMS
        ],
    )


def gradient_encoder(images_NHW: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
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
    def spectrum(row: int, zoom: float) -> NDArray[np.complex64]:
        return coarse_spectrum(view(corpus.pictures.images_NHW[row], zoom=zoom))

    found = []
    for image in tqdm(range(len(queries)), desc=title, unit="image", dynamic_ncols=True):
        exact = by_hash.get(queries.hashes[image], [])
        found += [(image, row, "exact", 1.0, 1.0, 1.0, 0.0, "pixel hash") for row in exact]
        pixels = queries.images_NHW[image]
        prepared: dict[float, Query] = {}
        near: dict[int, tuple[Match, str]] = {}
        for candidate, names in _candidates(pixels, corpus).items():
            if candidate.row in exact:
                continue
            if candidate.query_zoom not in prepared:
                prepared[candidate.query_zoom] = Query(view(pixels, zoom=candidate.query_zoom))
            query = prepared[candidate.query_zoom]
            peak, start = query.roughly(spectrum(candidate.row, candidate.other_zoom))
            if peak < GATE:
                continue
            other = view(corpus.pictures.images_NHW[candidate.row], zoom=candidate.other_zoom)
            match = query.match(other, start)
            if match.score < THRESHOLD:
                continue
            # In the frames of the whole pictures.
            scale = match.scale * candidate.query_zoom / candidate.other_zoom
            match = replace(match, scale=scale)
            if candidate.row not in near or match.score > near[candidate.row][0].score:
                near[candidate.row] = match, " and ".join(names)
        found += [
            (image, row, "near", match.score, match.overlap, match.scale, match.degrees, names)
            for row, (match, names) in near.items()
        ]
    return pd.DataFrame(found, columns=list(_COLUMNS))


def _candidates(image: NDArray[np.uint8], corpus: Corpus) -> dict[Candidate, list[str]]:
    """What an encoder finds close, with the encoders' names."""
    whole = view(image)
    copies = np.stack([turned(whole, *pose) for pose in POSES])
    candidates: dict[Candidate, list[str]] = {}

    def add(closeness: NDArray[np.float32], count: int, name: str, zooms: Zooms) -> None:
        count = min(count, len(closeness))
        for row in np.argpartition(-closeness, count - 1)[:count]:
            query_zoom, other_zoom = zooms(int(row))
            candidate = Candidate(row=int(row), query_zoom=query_zoom, other_zoom=other_zoom)
            candidates.setdefault(candidate, []).append(name)

    encoded = {name: encode(copies) for name, encode in corpus.encoders.items()}
    for name, vectors_PD in encoded.items():
        add((vectors_PD @ corpus.vectors[name].T).max(axis=0), NUM_NEIGHBOURS, name,
            lambda _: (1.0, 1.0))  # fmt: skip
    gradients = encoded.get("gradients", gradient_encoder(copies))
    inside_ZN = np.stack([(gradients @ vectors.T).max(axis=0) for vectors in corpus.zoomed])
    best_N = inside_ZN.argmax(axis=0)
    add(inside_ZN.max(axis=0), NUM_ZOOMED, "gradients of the middle",
        lambda row: (1.0, _start(ZOOMS[best_N[row]])))  # fmt: skip
    around_ZN = np.stack([_closest(view(image, zoom=zoom), corpus) for zoom in ZOOMS])
    most_N = around_ZN.argmax(axis=0)
    add(around_ZN.max(axis=0), NUM_ZOOMED, "gradients of the middle",
        lambda row: (_start(ZOOMS[most_N[row]]), 1.0))  # fmt: skip
    return candidates


def _closest(middle: NDArray[np.uint8], corpus: Corpus) -> NDArray[np.float32]:
    """Likeness of a query's middle, turned a little both ways, to each whole picture."""
    copies = [turned(middle, degrees, 1.0) for degrees in ZOOM_TURNS]
    return (gradient_encoder(copies) @ corpus.vectors["gradients"].T).max(axis=0)


def _start(zoom: float) -> float:
    return min(STARTS, key=lambda start: abs(np.log(start / zoom)))
