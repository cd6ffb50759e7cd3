import io

import numpy as np
import pytest
from PIL import Image

from dpmed.data.dicom_codestream import codestream_size

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40), dtype=np.uint8)


def encoded(image_format, **options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format=image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG2000", {}),
        ("JPEG2000", {"no_jp2": True}),
    ],
)
def test_size_of_a_frame(image_format, options):
    assert codestream_size(encoded(image_format, **options)) == (24, 40)


def test_no_frame_header():
    assert codestream_size(b"") is None
    assert codestream_size(b"\xff\xd8") is None
    assert codestream_size(encoded("PNG")) is None
    for image_format in ("JPEG", "JPEG2000"):
        content = encoded(image_format)
        for length in range(0, 200, 7):
            assert codestream_size(content[:length]) in (None, (24, 40))
    whole = encoded("JPEG")
    assert codestream_size(whole + b"\0") == (24, 40)  # frames are padded to an even length
    assert codestream_size(whole[:-2]) is None


def test_broken_headers_end():
    content = encoded("JPEG")
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(content)
        for place in rng.integers(2, 200, 5):
            broken[place] = int(rng.integers(256))
        codestream_size(bytes(broken))
    assert codestream_size(b"\xff\xd8" + b"\xff" * 1000) is None
    assert codestream_size(b"\xff\xd8\xff\xe0\x00\x00" * 10) is None
