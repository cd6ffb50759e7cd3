import numpy as np
import pytest

from dpmed.data.preprocessing import (
    Preprocessing,
    looks_inverted,
    preprocess,
    preprocessing_preset,
)
from dpmed.errors import UserError


def ramp(height=64, width=64, dtype=np.uint8, low=50, high=200):
    row = np.linspace(low, high, width).round().astype(dtype)
    return np.broadcast_to(row, (height, width)).copy()


def test_none_keeps_the_declared_range():
    setting = Preprocessing(image_size=64, intensity="none")
    np.testing.assert_array_equal(preprocess(ramp(), setting), ramp())
    wide = preprocess(ramp(dtype=np.uint16, low=0, high=65535), setting)
    assert (wide.min(), wide.max()) == (0, 255)
    np.testing.assert_array_equal(
        wide[0], np.rint(ramp(dtype=np.uint16, low=0, high=65535)[0] / 257)
    )


def test_minmax_stretches_each_image_alone():
    result = preprocess(ramp(), Preprocessing(image_size=64, intensity="minmax"))
    assert (result.min(), result.max()) == (0, 255)
    twelve_bit = preprocess(ramp(dtype=np.uint16, low=100, high=4000), Preprocessing(image_size=64))
    assert (twelve_bit.min(), twelve_bit.max()) == (0, 255)


def test_percentiles_clip_outliers():
    pixels = ramp()
    pixels[0, 0] = 255
    pixels[0, 1] = 0
    result = preprocess(pixels, Preprocessing(image_size=64, intensity="percentile"))
    low, high = np.percentile(pixels, [1, 99])
    expected = np.clip(np.rint((pixels - low) * 255 / (high - low)), 0, 255)
    np.testing.assert_allclose(result, expected, atol=1)


def test_equalised_histogram_is_flat():
    rng = np.random.default_rng(0)
    pixels = (255 * rng.beta(2, 5, (128, 128))).astype(np.uint8)
    result = preprocess(pixels, preprocessing_preset("papers", image_size=128))
    quarters = np.histogram(result, bins=4, range=(0, 256))[0] / result.size
    np.testing.assert_allclose(quarters, 0.25, atol=0.03)


def test_aspect_ratio_kept_or_not():
    pixels = np.full((200, 100), 100, dtype=np.uint8)
    pixels[0] = 200
    kept = preprocess(
        pixels, Preprocessing(image_size=40, keep_aspect_ratio=True, intensity="none")
    )
    assert (kept[:, :10] == 0).all()
    assert (kept[:, 30:] == 0).all()
    assert (kept[:, 10:30] >= 99).all()
    stretched = preprocess(pixels, Preprocessing(image_size=40, intensity="none"))
    assert (stretched >= 99).all()


def test_the_black_border_takes_no_part_in_stretching():
    pixels = ramp(200, 100)
    setting = Preprocessing(image_size=40, keep_aspect_ratio=True, intensity="minmax")
    alone = preprocess(pixels, Preprocessing(image_size=40))
    inside = preprocess(pixels, setting)[:, 10:30]
    np.testing.assert_allclose(inside.mean(), alone.mean(), atol=2)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_flat_image_is_no_error(dtype):
    flat = np.full((32, 32), 7, dtype=dtype)
    for intensity in ("none", "minmax", "percentile"):
        setting = Preprocessing(image_size=16, intensity=intensity, equalize=True)
        assert preprocess(flat, setting).dtype == np.uint8


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 7)])
def test_odd_shapes(shape):
    pixels = np.full(shape, 9, dtype=np.uint8)
    for keep in (True, False):
        setting = Preprocessing(image_size=16, keep_aspect_ratio=keep)
        assert preprocess(pixels, setting).shape == (16, 16)


def test_downscaling_averages():
    checkers = (np.indices((256, 256)).sum(axis=0) % 2 * 200).astype(np.uint8)
    small = preprocess(checkers, Preprocessing(image_size=32, intensity="none"))
    np.testing.assert_allclose(small, 100, atol=3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"image_size": 4}, "image_size=4"),
        ({"image_size": 64, "intensity": "minmx"}, r"intensity='minmx'.*Did you mean 'minmax'"),
        ({"image_size": 64, "photometric": "MONO"}, "photometric='MONO'"),
        ({"image_size": 64, "low_percentile": 99.0}, r"low_percentile=99.0 must be below"),
    ],
)
def test_bad_settings_are_named(setting, message):
    with pytest.raises(UserError, match=message):
        Preprocessing(**setting)


def test_unknown_preset():
    with pytest.raises(UserError, match=r"preset='paper'.*Did you mean 'papers'"):
        preprocessing_preset("paper", image_size=64)


def test_inverted_radiographs_are_suspected(shared_data):
    from dpmed.data.decoding import decode_image

    files = sorted((shared_data / "nih14_dev" / "images").iterdir())[:200]
    images = [decode_image(file, Preprocessing(image_size=64)) for file in files]
    assert np.mean([looks_inverted(image) for image in images]) < 0.02
    assert np.mean([looks_inverted(255 - image) for image in images]) > 0.85
