"""What the first bytes of a JPEG or PNG say, read without decoding: size, number of channels, orientation."""

import struct
from dataclasses import dataclass

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"

MAX_PIXELS = 50_000_000
"""The most pixels of a picture unless the caller says otherwise."""

_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers SOF0..SOF15: a frame header, which has the size (ITU T.81, table B.1)."""
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers that no length follows."""
_SCAN = 0xDA
"""Where the coded picture begins."""
_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """Size in pixels as stored (before orientation), number of components, and EXIF orientation (1 to 8)."""

    height: int
    width: int
    components: int
    orientation: int


def jpeg_header(data: bytes) -> JpegHeader:
    """Walks the segments of a JPEG up to its first scan.

    Raises:
        ValueError: if there is no frame header among them.
    """
    orientation = 1
    frame: tuple[int, int, int] | None = None
    at, end = 2, len(data)
    while at + 4 <= end and data[at + 1] != _SCAN:
        if data[at] != 0xFF or data[at + 1] == 0xFF:
            at += 1
            continue
        marker = data[at + 1]
        if marker in _ALONE:
            at += 2
            continue
        length = (data[at + 2] << 8) | data[at + 3]
        if marker in _SIZES and at + 10 <= end:
            frame = struct.unpack_from(">HHB", data, at + 5)
        elif marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _exif_orientation(data[at + 10 : at + 2 + length])
        at += 2 + length
    if frame is None:
        raise ValueError("the picture is damaged: a JPEG without a frame header")
    height, width, components = frame
    return JpegHeader(height, width, components, orientation)


def png_size(data: bytes) -> tuple[int, int]:
    """Height and width of a PNG.

    Raises:
        ValueError: if its first chunk is not the header.
    """
    if len(data) < 24 or data[12:16] != b"IHDR":
        raise ValueError("the picture is damaged: a PNG without a header")
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def check_pixels(height: int, width: int, max_pixels: int) -> None:
    """Raises a ValueError if a header's size is empty or above the limit."""
    if height < 1 or width < 1:
        raise ValueError(f"the picture's header says {width} x {height} pixels")
    if height * width > max_pixels:
        raise ValueError(f"the picture's header says {width} x {height} pixels, more than the {max_pixels:,} allowed")


def _exif_orientation(tiff: bytes) -> int:
    """The orientation in an EXIF block (TIFF 6.0, section 2); 1 where it has none or makes no sense, as viewers take it."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    at = struct.unpack_from(order + "I", tiff, 4)[0]
    if at + 2 > len(tiff):
        return 1
    count = struct.unpack_from(order + "H", tiff, at)[0]
    for entry in range(at + 2, min(at + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", tiff, entry)
        if tag == _ORIENTATION and kind == 3:
            value = int(struct.unpack_from(order + "H", tiff, entry + 8)[0])
            return value if 1 <= value <= 8 else 1
    return 1
