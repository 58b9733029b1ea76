"""The image formats that are opened, how each is recognised, and the size that its header states.

Decoders of untrusted bytes allocate and loop before they know better: WebP's takes memory for the
whole canvas when it is opened, a TIFF's tags may each claim the whole file, a JPEG 2000 has two
headers that may differ. So the size is read here first, with a budget for each walk.
"""

import re
import struct
from collections.abc import Callable

from mtl_ray.inputs.image_boxes import CODESTREAM, avif_size, jpeg2000_size
from mtl_ray.inputs.image_header import (
    JPEG,
    MAX_JUNK_BYTES,
    MAX_SEGMENTS,
    PNG,
    jpeg_header,
    png_header,
)

_EXIF_IFD = 0x8769
_TIFF_WIDTHS = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
"""Bytes of a value by its TIFF type (TIFF 6.0, section 2; BigTIFF adds 16 to 18)."""
_TIFF_INTEGERS = {3: "H", 4: "I", 13: "I", 16: "Q"}
_MAX_TILE = 1 << 22
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n\r]*[\n\r])+(\d{1,9})(?:\s|#[^\n\r]*[\n\r])+(\d{1,9})[\s#]")


def image_format(data: bytes) -> str:
    """The name of an image's format, as Pillow has it, by its first bytes.

    Raises:
        ValueError: if it is none of ``FORMATS``.
    """
    for name, (matches, _) in FORMATS.items():
        if matches(data):
            return name
    if not data:
        raise ValueError("the image cannot be read: the file is empty")
    raise ValueError(f"the image cannot be read: it is in no known format ({', '.join(FORMATS)})")


def stored_size(data: bytes, kind: str) -> tuple[int, int]:
    """Height and width in pixels as stored, of the format that ``image_format`` said.

    Raises:
        ValueError: if the header is cut short, makes no sense, or is too long.
    """
    try:
        return FORMATS[kind][1](data)
    except (struct.error, IndexError):
        raise ValueError(f"the image is damaged: its {kind} header is cut short") from None


def check_exif(tiff: bytes) -> None:
    """Raises a ValueError for an EXIF block whose values add up to more than it holds: a reader
    would copy each of them.
    """
    if tiff[:4] in (b"II*\0", b"MM\0*"):
        try:
            _tiff_values(tiff)
        except (struct.error, IndexError):
            return  # what is cut short cannot grow


def _jpeg_size(data: bytes) -> tuple[int, int]:
    header = jpeg_header(data)
    check_exif(header.exif)
    return header.height, header.width


def _png_size(data: bytes) -> tuple[int, int]:
    header = png_header(data)
    return header.height, header.width


def _gif_size(data: bytes) -> tuple[int, int]:
    """The screen, or the first frame where that reaches beyond it (GIF89a, sections 18 to 20)."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    blocks = iter(range(4 * MAX_SEGMENTS))
    for _ in blocks:
        kind = data[at]
        if kind == 0x2C:
            left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, at + 1)
            return max(height, top + frame_height), max(width, left + frame_width)
        if kind == 0x3B:
            raise ValueError("the image is damaged: a GIF without an image")
        at += 2 if kind == 0x21 else 1
        while kind == 0x21 and (length := data[at]) and next(blocks, None) is not None:
            at += 1 + length
        at += kind == 0x21
    raise ValueError("the image is damaged: a GIF whose header does not end")


def _webp_size(data: bytes) -> tuple[int, int]:
    """RFC 9649, sections 2.5 to 2.7."""
    kind = data[12:16]
    if kind == b"VP8X":
        low, high, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        return (high_height << 16 | low_height) + 1, (high << 16 | low) + 1
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    raise ValueError("the image is damaged: a WEBP without a header")


def _bmp_size(data: bytes) -> tuple[int, int]:
    return _dib_size(data[14:64])


def _dib_size(data: bytes) -> tuple[int, int]:
    """A negative height means that the first row is the top one."""
    length = struct.unpack_from("<I", data)[0]
    width, height = struct.unpack_from("<HH" if length == 12 else "<Ii", data, 4)
    return abs(height), width


def _tiff_size(data: bytes) -> tuple[int, int]:
    """The first image file directory (TIFF 6.0, section 2)."""
    values = _tiff_values(data)
    height, width = values.get(257, 0), values.get(256, 0)
    tile = values.get(322, 0) * values.get(323, 0)
    if tile > max(_MAX_TILE, 4 * height * width):
        raise ValueError(
            f"the image is damaged: a TIFF of {width} x {height} pixels with tiles of {tile:,}"
        )
    return height, width


def _tiff_values(data: bytes) -> dict[int, int]:
    """The integers of the first directory and of EXIF's, by tag.

    Raises:
        ValueError: if there are too many tags, or their values add up to more than the file holds.
    """
    order = "<" if data[:1] == b"I" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    entry_format, entry_bytes = order + ("HHQ" if big else "HHI"), 20 if big else 12
    found: dict[int, int] = {}
    directories, total = (
        [struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]],
        0,
    )
    for at in directories:
        count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
        if count > MAX_SEGMENTS:
            raise ValueError(f"the image is damaged: a TIFF directory of {count:,} tags")
        first = at + (8 if big else 2)
        for entry in range(first, first + count * entry_bytes, entry_bytes):
            tag, kind, number = struct.unpack_from(entry_format, data, entry)
            total += number * (_TIFF_WIDTHS[kind] if kind < len(_TIFF_WIDTHS) else 0)
            if kind in _TIFF_INTEGERS and number == 1:
                found[tag] = struct.unpack_from(
                    order + _TIFF_INTEGERS[kind], data, entry + (12 if big else 8)
                )[0]
        if len(directories) == 1 and _EXIF_IFD in found:
            directories.append(found[_EXIF_IFD])
    if total > len(data) + MAX_JUNK_BYTES:
        raise ValueError("the image is damaged: its tags claim more bytes than it has")
    return found


def _pnm_size(data: bytes) -> tuple[int, int]:
    found = _PNM.match(data, 0, MAX_JUNK_BYTES)
    if found is None:
        raise ValueError("the image is damaged: a PPM without a size")
    return int(found[2]), int(found[1])


FORMATS: dict[str, tuple[Callable[[bytes], bool], Callable[[bytes], tuple[int, int]]]] = {
    "JPEG": (lambda data: data.startswith(JPEG), _jpeg_size),  # MPO too: its first image is a JPEG
    "PNG": (lambda data: data.startswith(PNG), _png_size),
    "WEBP": (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp_size),
    "AVIF": (
        lambda data: data[4:12] in (b"ftypavif", b"ftypavis", b"ftypmif1", b"ftypmsf1"),
        avif_size,
    ),
    "TIFF": (lambda data: data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff_size),
    "BMP": (lambda data: data[:2] == b"BM", _bmp_size),
    "GIF": (lambda data: data[:6] in (b"GIF87a", b"GIF89a"), _gif_size),
    "PPM": (lambda data: re.match(rb"P[1-6][\s#]", data) is not None, _pnm_size),
    "JPEG2000": (
        lambda data: data[:4] == CODESTREAM or data[:12] == b"\0\0\0\x0cjP  \r\n\x87\n",
        jpeg2000_size,
    ),
    "DIB": (
        lambda data: (
            data[:4] in {bytes([length, 0, 0, 0]) for length in (12, 40, 52, 56, 64, 108, 124)}
        ),
        _dib_size,
    ),
}
"""By Pillow's name of each format that is opened: whether some bytes are in it, and the height
and width that they state. Nothing else that Pillow knows is opened: an EPS would start
Ghostscript, an ICO decodes an image before its size is known.
"""
