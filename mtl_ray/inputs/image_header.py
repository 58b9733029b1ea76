"""What the first bytes of a JPEG or PNG say, read without decoding: size, number of channels,
orientation.

Each walk has a budget, so that a hostile file is refused after little work.
"""

import re
import struct
from dataclasses import dataclass

from mtl_ray.inputs.input import TooLargeError

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"

MAX_PIXELS = 50_000_000
"""The most pixels of an image unless the caller says otherwise."""
MAX_SEGMENTS = 4096
"""The most segments, chunks or boxes that may come before the image data."""
MAX_JUNK_BYTES = 65_536
"""The most bytes of a JPEG header that belong to no segment, and the longest text header."""
MAX_SCANS = 256
"""The most scans of a progressive JPEG: each costs as much as decoding the whole image."""

_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers SOF0..SOF15: a frame header, which has the size (ITU T.81, table B.1)."""
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers that no length follows."""
_SCAN, _END = 0xDA, 0xD9
_MARKER = re.compile(rb"(?<=\xff)[\x01-\xfe]")
"""A marker's second byte: neither a stuffed zero nor a fill byte."""
_ORIENTATION = 0x0112


class TooManyPixelsError(TooLargeError):
    """An image whose header says more pixels than the caller allows."""


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """Size in pixels as stored (before orientation), number of components, EXIF orientation (1
    to 8) and EXIF block.
    """

    height: int
    width: int
    components: int
    orientation: int
    exif: bytes


@dataclass(frozen=True, slots=True)
class PngHeader:
    """Size in pixels as stored, and EXIF orientation (1 to 8)."""

    height: int
    width: int
    orientation: int


def jpeg_header(data: bytes) -> JpegHeader:
    """Walks the segments of a JPEG up to its first scan.

    Raises:
        ValueError: if there is no frame header among them, or the walk is too long.
    """
    exif: list[bytes] = []
    frame: tuple[int, int, int] | None = None
    progressive = False
    at, end, junk = 2, len(data), 0
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, at + 1, at + 2 + MAX_JUNK_BYTES - junk)
        if found is None or found.start() + 3 > end:
            break
        junk += found.start() - 1 - at
        at, marker = found.start() - 1, data[found.start()]
        if marker in (_SCAN, _END):
            break
        if marker in _ALONE:
            at += 2
            continue
        length = (data[at + 2] << 8) | data[at + 3]
        if marker in _SIZES and at + 10 <= end:
            frame, progressive = struct.unpack_from(">HHB", data, at + 5), marker % 4 == 2
        elif marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            exif.append(data[at + 10 : at + 2 + length])
        at += 2 + length
    if frame is None:
        raise ValueError("the image is damaged: a JPEG without a frame header")
    if progressive and data.count(b"\xff\xda", at, data.find(b"\xff\xd9", at)) > MAX_SCANS:
        raise ValueError(f"the image is damaged: a JPEG of more than {MAX_SCANS} scans")
    return JpegHeader(
        *frame, orientation=exif_orientation(exif[-1]) if exif else 1, exif=b"".join(exif)
    )


def png_header(data: bytes) -> PngHeader:
    """Walks the chunks of a PNG.

    Raises:
        ValueError: if its first chunk is not the header, another follows, it is cut short, or has
            absurdly many chunks.
    """
    if len(data) < 24 or data[12:16] != b"IHDR":
        raise ValueError("the image is damaged: a PNG without a header")
    width, height = struct.unpack_from(">II", data, 16)
    at, end, orientation = 33, len(data), 1
    for _ in range(MAX_SEGMENTS + end // 512):
        name = data[at + 4 : at + 8]
        if at + 8 > end or name == b"IEND":
            return PngHeader(height, width, orientation)
        if name == b"eXIf":
            orientation = exif_orientation(data[at + 8 : at + 8 + MAX_JUNK_BYTES])
        if name == b"IHDR" or (name == b"fcTL" and _beyond(data, at, height, width)):
            raise ValueError("the image is damaged: a PNG with two sizes")
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        if at > end:  # OpenCV would allocate what the chunk claims
            raise ValueError("the image is damaged: a PNG that is cut short")
    raise ValueError("the image is damaged: a PNG of too many chunks")


def check_pixels(height: int, width: int, max_pixels: int) -> None:
    """Raises a ValueError if a header's size is empty, a TooManyPixelsError if it is above the
    limit.
    """
    if height < 1 or width < 1:
        raise ValueError(f"the image's header says {width} x {height} pixels")
    if height * width > max_pixels:
        raise TooManyPixelsError(
            f"the image's header says {width} x {height} pixels, more than the {max_pixels:,} "
            "allowed"
        )


def exif_orientation(tiff: bytes) -> int:
    """The orientation in an EXIF block (TIFF 6.0, section 2); 1 where it has none or makes no
    sense, as viewers take it.
    """
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


def _beyond(data: bytes, at: int, height: int, width: int) -> bool:
    """True if a frame of an animated PNG is larger than the image."""
    return (
        int.from_bytes(data[at + 12 : at + 16], "big") > width
        or int.from_bytes(data[at + 16 : at + 20], "big") > height
    )
