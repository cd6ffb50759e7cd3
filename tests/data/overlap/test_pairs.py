"""Changed copies are found, pictures of other people are not, and the pose is measured."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dpmed import data
from dpmed.data.overlap.contrast import canonical
from dpmed.data.overlap.pairs import GATE, THRESHOLD, encode_corpus, find_pairs, gradient_encoder
from dpmed.data.overlap.pictures import from_arrays
from dpmed.data.overlap.planted import changed_copy, draw_change
from dpmed.data.overlap.registration import Query, coarse_spectrum


@pytest.fixture(scope="module")
def radiographs() -> list[np.ndarray]:
    table = data.synthetic_cohort(num_patients=30, seed=3).drop_duplicates("patient_id")
    return list(data.render_radiographs(table, seed=3, image_size=160, num_workers=1))


def test_copies_are_found_and_other_patients_are_not(radiographs: list[np.ndarray]) -> None:
    corpus_images, others = radiographs[:20], radiographs[20:]
    names = [str(row) for row in range(20)]
    corpus = encode_corpus(from_arrays(corpus_images, names), {"gradients": gradient_encoder})
    generator = np.random.default_rng(0)
    copies = [changed_copy(image, draw_change(generator)) for image in corpus_images[:10]]
    queries = from_arrays([*copies, corpus_images[12], *others], [str(i) for i in range(21)])
    pairs = find_pairs(queries, corpus, title="comparing")
    assert list(zip(pairs["image"], pairs["other"], strict=True)) == [
        *((row, row) for row in range(10)),
        (10, 12),
    ]
    assert pairs["kind"].tolist() == ["near"] * 10 + ["exact"]
    assert (pairs["score"] >= THRESHOLD).all()


def test_the_pose_of_a_copy_is_measured(radiographs: list[np.ndarray]) -> None:
    original = canonical(radiographs[0])
    turned = Image.fromarray(radiographs[0]).rotate(3.0, Image.Resampling.BICUBIC)
    query = Query(canonical(np.asarray(turned)))
    peak, start = query.roughly(coarse_spectrum(original))
    match = query.match(original, start)
    assert peak > GATE
    assert match.score > 0.95
    assert abs(match.degrees) == pytest.approx(3.0, abs=0.2)
    assert match.scale == pytest.approx(1.0, abs=0.01)
    # Nothing but noise has no pose.
    noise = np.random.default_rng(1).integers(0, 255, (128, 128)).astype(np.uint8)
    assert query.roughly(coarse_spectrum(noise))[0] < 0.5


def test_a_flat_picture_is_nobody(radiographs: list[np.ndarray]) -> None:
    corpus = encode_corpus(
        from_arrays([np.zeros((90, 80), np.uint8), radiographs[0]], ["flat", "chest"]),
        {"gradients": gradient_encoder},
    )
    flat = from_arrays([np.full((64, 64), 7, np.uint8), np.zeros((60, 60), np.uint8)], ["a", "b"])
    assert find_pairs(flat, corpus, title="comparing").empty
