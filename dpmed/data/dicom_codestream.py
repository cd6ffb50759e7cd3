"""The size that a compressed frame's own header claims, looked at before anything is decompressed.

Decoders believe it: a frame with a broken height keeps one busy for a minute and fills the memory.
"""

from __future__ import annotations

import struct

JPEG_START = b"\xff\xd8"
JPEG_END = b"\xff\xd9"
PADDING_BYTES = 16  # behind the end marker, seen as zeros and as FF
JPEG_2000_START = b"\xff\x4f\xff\x51"  # start of codestream, then the marker of the image size
# Start-of-frame markers of JPEG, without its tables (C4, C8, CC), and that of JPEG-LS (F7).
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG, JPEG-LS or JPEG 2000 frame; None where it is no whole one.

    A JPEG or JPEG-LS frame without its end marker counts as none: CharLS spends a minute on one.
    """
    try:
        if frame.startswith(JPEG_START):
            return _jpeg_size(frame) if JPEG_END in frame[-PADDING_BYTES:] else None
        start = frame.find(JPEG_2000_START, 0, 1 << 16)  # behind the boxes of a JP2 file, if any
        if start < 0:
            return None
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        return bottom - top, right - left
    except struct.error:
        return None


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    place = len(JPEG_START)
    while place < len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1] if place + 1 < len(frame) else 0
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if marker in FRAME_MARKERS:
            rows, columns = struct.unpack_from(">HH", frame, place + 5)
            return rows, columns
        (length,) = struct.unpack_from(">H", frame, place + 2)
        place += 2 + length
    return None
