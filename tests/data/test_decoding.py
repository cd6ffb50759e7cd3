import io
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from dpmed.data.decoding import UnreadableImageError, decode_image, read_pixels
from dpmed.data.preprocessing import Preprocessing
from dpmed.errors import UserError

SETTING = Preprocessing(image_size=32)
RAMP = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8), (48, 64)).copy()


def encoded(image, image_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def write(folder, content, name="a.png"):
    (folder / name).write_bytes(content)
    return folder / name


def test_eight_bit_png_is_read_exactly(tmp_path):
    path = write(tmp_path, encoded(Image.fromarray(RAMP)))
    np.testing.assert_array_equal(read_pixels(path, SETTING), RAMP)
    assert decode_image(path, SETTING).shape == (32, 32)


def test_sixteen_bit_png_is_read_exactly(tmp_path):
    pixels = RAMP.astype(np.uint16) * 257
    path = write(tmp_path, encoded(Image.fromarray(pixels)))
    found = read_pixels(path, SETTING)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, pixels)


def test_jpeg_and_wrong_suffix(tmp_path):
    path = write(tmp_path, encoded(Image.fromarray(RAMP), "JPEG", quality=95), "a.png")
    np.testing.assert_allclose(read_pixels(path, SETTING), RAMP, atol=6)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_other_modes_become_grey(tmp_path, mode):
    path = write(tmp_path, encoded(Image.fromarray(RAMP).convert(mode)))
    found = read_pixels(path, SETTING)
    assert found.dtype == np.uint8
    assert found.shape == RAMP.shape


def test_cmyk_jpeg(tmp_path):
    grey = Image.fromarray(RAMP).convert("RGB").convert("CMYK")
    path = write(tmp_path, encoded(grey, "JPEG", quality=95))
    np.testing.assert_allclose(read_pixels(path, SETTING), RAMP, atol=12)


def test_broken_files_are_named_with_a_reason(tmp_path):
    png = encoded(Image.fromarray(RAMP))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    jpeg = encoded(Image.fromarray(noise), "JPEG")
    frames = [Image.fromarray(RAMP), Image.fromarray(RAMP[::-1].copy())]
    for name, content, reason in [
        ("empty.png", b"", "the file is empty"),
        ("text.png", b"<html>404</html>", "neither PNG, JPEG nor DICOM"),
        ("half.png", png[: len(png) // 2], "."),
        ("half.jpg", jpeg[: len(jpeg) // 2], "truncated"),
        ("frames.png", encoded(frames[0], save_all=True, append_images=frames[1:]), "several"),
        ("picture.gif", encoded(frames[0], "GIF"), "neither PNG"),
        ("text.dcm", b"not DICOM at all", "DICOM"),
    ]:
        path = write(tmp_path, content, name)
        with pytest.raises(UnreadableImageError, match=rf"cannot decode .*{name}: .*{reason}"):
            decode_image(path, SETTING)
    with pytest.raises(UserError, match="No such file"):
        decode_image(tmp_path / "none.png", SETTING)


def test_huge_headers_are_refused_before_decoding(tmp_path):
    png = bytearray(encoded(Image.fromarray(RAMP)))
    png[16:24] = (60_000).to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(bytes(png[12:29])).to_bytes(4, "big")
    with pytest.raises(UnreadableImageError, match=r"60000x60000|exceeds limit"):
        decode_image(write(tmp_path, bytes(png)), SETTING)


def mutations(content, number, seed):
    """Cut, flipped, overwritten and repeated copies of a file."""
    rng = np.random.default_rng(seed)
    for index in range(number):
        changed = bytearray(content)
        place = int(rng.integers(len(changed)))
        if index % 4 == 0:
            changed = changed[:place]
        elif index % 4 == 1:
            for spot in rng.integers(0, len(changed), 20):
                changed[spot] = int(rng.integers(256))
        elif index % 4 == 2:
            changed[place : place + 16] = rng.bytes(16)
        else:
            spot = int(rng.integers(min(len(changed), 600)))
            changed[spot] ^= 1 << int(rng.integers(8))
        yield bytes(changed)


@pytest.mark.timeout(60)
def test_mutated_files_give_an_image_or_a_named_error(tmp_path):
    sources = [
        encoded(Image.fromarray(RAMP)),
        encoded(Image.fromarray(RAMP.astype(np.uint16) * 200)),
        encoded(Image.fromarray(RAMP).convert("RGB"), "JPEG"),
    ]
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed, source in enumerate(sources):
            for content in mutations(source, 120, seed):
                path = write(tmp_path, content)
                try:
                    image = decode_image(path, SETTING)
                except UnreadableImageError as error:
                    refused += str(path) in str(error)
                else:
                    assert image.shape == (32, 32)
                    assert image.dtype == np.uint8
    assert 90 < refused < 360
