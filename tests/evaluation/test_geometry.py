"""Geometry against singular value decompositions and scipy, on data that fit in memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import procrustes

from dpmed.errors import UserError
from dpmed.evaluation import geometry
from dpmed.evaluation.embeddings import EmbeddingWriter
from dpmed.evaluation.geometry import measure_geometry
from dpmed.evaluation.moments import Moments
from dpmed.evaluation.spectrum import alpha_req, effective_dimension


def _embeddings(seed: int, num_images: int = 90, num_features: int = 12) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    scales = 1 / np.arange(1, num_features + 1)
    initial = generator.normal(size=(num_images, num_features)) * scales + 0.2
    trained = initial + 0.3 * generator.normal(size=initial.shape) * scales
    return [initial.astype(np.float16), trained.astype(np.float16)]


def _values(initial, trained, num_images=90, **settings):
    patients = np.arange(num_images) // 3
    found = measure_geometry(initial, trained, patient_ids=patients, **settings)
    return {name: entry["value"] for name, entry in found.items()}


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _exponential_entropy(values: np.ndarray) -> float:
    shares = values / values.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_every_metric_equals_its_definition(seed):
    initial, trained = _embeddings(seed)
    found = _values(initial, trained)
    z0, ze = _unit(initial), _unit(trained)
    c0, ce = z0 - z0.mean(axis=0), ze - ze.mean(axis=0)
    cosines = np.sum(z0 * ze, axis=1)
    displacement = np.mean(np.sum((ze - z0) ** 2, axis=1))
    singular = np.linalg.svd(ce, compute_uv=False)
    kernels = [c @ c.T for c in (c0, ce)]
    expected = {
        "displacement": displacement,
        "cosine_drift": 1 - cosines.mean(),
        "scale_normalised_drift": displacement / np.mean(np.sum(c0**2, axis=1)),
        "linear_cka": np.sum(kernels[0] * kernels[1])
        / (np.linalg.norm(kernels[0]) * np.linalg.norm(kernels[1])),
        "procrustes_residual": procrustes(z0, ze)[2],
        "effective_dimension": np.sum(singular**2) ** 2 / np.sum(singular**4),
        "effective_rank_eigenvalues": _exponential_entropy(singular**2),
        "effective_rank_singular_values": _exponential_entropy(singular),
        "rankme": _exponential_entropy(np.linalg.svd(ze, compute_uv=False)),
        "alpha_req": alpha_req(singular**2 / len(ze)),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name
    assert 0 <= found["displacement"] <= 4
    assert 1 <= found["effective_dimension"] <= initial.shape[1]


def test_three_effective_ranks_are_three_numbers():
    values = _values(*_embeddings(0))
    ranks = {
        round(values[f"{name}"], 2)
        for name in ("effective_rank_eigenvalues", "effective_rank_singular_values", "rankme")
    }
    assert len(ranks) == 3


def test_an_encoder_that_did_not_move():
    initial, _ = _embeddings(1)
    values = _values(initial, initial)
    assert values["displacement"] == pytest.approx(0, abs=1e-12)
    assert values["linear_cka"] == pytest.approx(1)
    assert values["procrustes_residual"] == pytest.approx(0, abs=1e-6)


def test_a_rotation_moves_everything_but_shape():
    initial, _ = _embeddings(2)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    values = _values(initial.astype(float), initial.astype(float) @ rotation)
    assert values["displacement"] > 0.1
    assert values["procrustes_residual"] == pytest.approx(0, abs=1e-6)
    assert values["linear_cka"] == pytest.approx(1)


def test_effective_dimension_of_known_spectra():
    assert effective_dimension(np.ones(7)) == pytest.approx(7)
    assert effective_dimension(np.array([5.0, 0, 0])) == pytest.approx(1)
    assert np.isnan(effective_dimension(np.zeros(3)))


def test_alpha_req_finds_the_exponent_of_a_power_law():
    assert alpha_req(np.arange(1.0, 200) ** -1.5) == pytest.approx(1.5)
    assert np.isnan(alpha_req(np.ones(4)))


@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(1, 199), min_size=1, max_size=5, unique=True),
)
@settings(max_examples=25, deadline=None)
def test_moments_do_not_depend_on_batches_and_can_be_taken_apart(seed, cuts):
    rows = np.random.default_rng(seed).normal(loc=50, size=(200, 6))
    parts = []
    for batch in np.split(rows, sorted(cuts)):
        parts.append(Moments.empty(6))
        parts[-1].add(batch)
    merged = Moments.empty(6)
    grown = Moments.empty(6)
    for part, batch in zip(parts, np.split(rows, sorted(cuts)), strict=True):
        merged = merged.merged(part)
        grown.add(batch)
    rest = merged.without(parts[0])
    for found, expected in ((merged, rows), (grown, rows), (rest, rows[min(cuts) :])):
        assert found.count == len(expected)
        np.testing.assert_allclose(found.mean_D, expected.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(
            found.covariance, np.cov(expected.T, bias=True), rtol=1e-9, atol=1e-10
        )


def test_no_eigenvalue_is_lost_far_from_the_origin():
    # Raw float32 second moments of these rows have negative eigenvalues; these must not.
    rows = np.random.default_rng(0).normal(loc=300, scale=0.1, size=(20_000, 32))
    moments = Moments.empty(32)
    for batch in np.split(rows, 10):
        moments.add(batch)
    raw = (rows.astype(np.float32).T @ rows.astype(np.float32)) / np.float32(len(rows))
    raw -= np.outer(rows.mean(axis=0), rows.mean(axis=0)).astype(np.float32)
    assert np.linalg.eigvalsh(raw)[0] < 0
    assert np.linalg.eigvalsh(moments.covariance)[0] == pytest.approx(0.01, rel=0.2)


def test_files_and_arrays_agree_in_any_block_size(tmp_path, monkeypatch):
    initial, trained = _embeddings(3)
    paths = []
    for name, rows in (("initial", initial), ("trained", trained)):
        paths.append(tmp_path / f"{name}_test.npy")
        with EmbeddingWriter(paths[-1], num_images=90, num_features=12) as writer:
            for batch in np.array_split(rows, 4):
                writer.append(batch)
        np.testing.assert_array_equal(np.load(paths[-1]), rows)
    expected = _values(initial, trained)
    monkeypatch.setattr(geometry, "ROWS_AT_A_TIME", 17)
    assert _values(*paths) == pytest.approx(expected, rel=1e-9)


def test_a_group_is_the_geometry_of_its_rows():
    initial, trained = _embeddings(4)
    member_N = np.arange(90) < 60
    found = _values(initial, trained, member_N=member_N)
    assert found == pytest.approx(_values(initial[:60], trained[:60], num_images=60), rel=1e-9)


def test_intervals_resample_patients_and_not_images():
    # Every image twice under the same patient: the same information, so the same interval.
    initial, trained = _embeddings(5)
    once = measure_geometry(initial, trained, patient_ids=np.arange(90))
    twice = measure_geometry(
        np.repeat(initial, 2, axis=0),
        np.repeat(trained, 2, axis=0),
        patient_ids=np.repeat(np.arange(90), 2),
    )
    for name, entry in once.items():
        width = entry["ci_high"] - entry["ci_low"]
        assert width > 0
        assert twice[name]["ci_high"] - twice[name]["ci_low"] == pytest.approx(width, rel=1e-6)


def test_what_cannot_be_measured_is_said(tmp_path):
    initial, trained = _embeddings(6)
    with pytest.raises(UserError, match="one architecture"):
        _values(initial, trained[:, :5])
    spoilt = trained.copy()
    spoilt[4] = 0
    with pytest.raises(UserError, match="1 embeddings are all zeros"):
        _values(initial, spoilt)
    alone = measure_geometry(initial, trained, patient_ids=["same"] * 90)
    assert alone["displacement"]["value"] > 0
    assert alone["displacement"]["reason"] == "interval not estimable: 1 patients"
    path = tmp_path / "trained_test.npy"
    np.save(path, trained)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="probably truncated"):
        _values(initial, path)
    with (
        pytest.raises(UserError, match="not finite"),
        EmbeddingWriter(tmp_path / "wide.npy", num_images=1, num_features=2) as writer,
    ):
        writer.append(np.array([[1.0, 1e6]]))
    assert not (tmp_path / "wide.npy").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["trained_test.npy"]
