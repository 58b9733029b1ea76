"""The sizes of images in files made of boxes: JPEG 2000 and AVIF.

Both state a size twice: in the boxes, and in the coded image, for which the decoder allocates. The
larger counts.
"""

import struct
from collections.abc import Iterator

from mtl_ray.inputs.image_header import MAX_SEGMENTS

CODESTREAM = b"\xff\x4f\xff\x51"
_CONTAINERS = {
    b"meta": 4,
    b"moov": 0,
    b"iprp": 0,
    b"ipco": 0,
    b"trak": 0,
    b"mdia": 0,
    b"minf": 0,
    b"stbl": 0,
    b"stsd": 8,
}
"""Boxes of an AVIF that hold boxes, and the bytes before the first."""
_MAX_PIECES = 64
"""The most pieces of an item, and the first chunks of a track that are looked at."""
_MAX_ITEM_BYTES = 65_536
"""So much of a coded image is looked through for its sequence headers, which come first."""


def jpeg2000_size(data: bytes) -> tuple[int, int]:
    """The size of the codestream (ITU T.800, A.5.1) and that of the file around it (I.5.3.1):
    the larger of both.
    """
    start, height, width = (0, 0, 0) if data.startswith(CODESTREAM) else _jp2_codestream(data)
    right, bottom, left, top, tile_width, tile_height, _, _, components = struct.unpack_from(
        ">8IH", data, start + 8
    )
    if (
        data[start : start + 4] != CODESTREAM
        or left >= right
        or top >= bottom
        or not tile_width
        or not tile_height
    ):
        raise ValueError("the image is damaged: a JPEG2000 without a size")
    tiles = -(-right // tile_width) * -(-bottom // tile_height)
    if components > 4 or tiles > 65_535:
        raise ValueError(
            f"the image is damaged: a JPEG2000 of {components} components in {tiles:,} tiles"
        )
    return max(height, bottom - top), max(width, right - left)


def _jp2_codestream(data: bytes) -> tuple[int, int, int]:
    """Where the codestream of a JP2 file begins, and the height and width that its image header
    states.
    """
    budget = iter(range(MAX_SEGMENTS))
    height = width = 0
    for name, at, end in _boxes(data, 0, len(data), budget):
        if name == b"jp2h":
            for inner, begin, _ in _boxes(data, at, end, budget):
                if inner == b"ihdr":
                    height, width = struct.unpack_from(">II", data, begin)
        elif name == b"jp2c":
            return at, height, width
    raise ValueError("the image is damaged: a JPEG2000 without a codestream")


def avif_size(data: bytes) -> tuple[int, int]:
    """The largest size of any item or track (ISO/IEC 14496-12, 23008-12 6.5.3), stated or coded,
    whichever of them is shown.
    """
    budget = iter(range(MAX_SEGMENTS))
    sizes = _stated_sizes(data, 0, len(data), budget, 0)
    for coded in _coded_images(data, budget):
        sizes += _sequence_sizes(coded, budget)
    height, width = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    if not height or not width:
        raise ValueError("the image is damaged: an AVIF without a size")
    return height, width


def _stated_sizes(
    data: bytes, at: int, end: int, budget: Iterator[int], depth: int
) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for name, begin, stop in _boxes(data, at, end, budget):
        if name == b"ispe":
            width, height = struct.unpack_from(">II", data, begin + 4)
            found.append((height, width))
        elif name == b"av01":
            width, height = struct.unpack_from(">HH", data, begin + 24)
            found.append((height, width))
        elif name in _CONTAINERS and depth < len(_CONTAINERS):
            found += _stated_sizes(data, begin + _CONTAINERS[name], stop, budget, depth + 1)
    return found


def _coded_images(data: bytes, budget: Iterator[int]) -> Iterator[bytes]:
    """The beginnings of what items and the chunks of tracks hold."""
    waiting = [(b"", 0, len(data))]
    idat = 0
    tables: list[tuple[bytes, int]] = []
    while waiting:
        outer, at, end = waiting.pop()
        for name, begin, stop in _boxes(data, at + _CONTAINERS.get(outer, 0), end, budget):
            if name in (b"iloc", b"stco", b"co64"):
                tables.append((name, begin))
            elif name == b"idat":
                idat = begin
            elif name in _CONTAINERS:
                waiting.append((name, begin, stop))
    for name, begin in tables:
        if name == b"iloc":
            yield from _items(data, begin, idat, budget)
        else:
            width = 4 if name == b"stco" else 8
            count = min(int.from_bytes(data[begin + 4 : begin + 8], "big"), _MAX_PIECES)
            for place in range(begin + 8, begin + 8 + width * count, width):
                offset = int.from_bytes(data[place : place + width], "big")
                yield data[offset : offset + _MAX_ITEM_BYTES]


def _items(data: bytes, at: int, idat: int, budget: Iterator[int]) -> Iterator[bytes]:
    """What the items of an ``iloc`` box hold (ISO/IEC 14496-12, 8.11.3)."""
    version = data[at]
    offset_bytes, length_bytes = data[at + 4] >> 4, data[at + 4] & 15
    base_bytes, index_bytes = data[at + 5] >> 4, data[at + 5] & 15 if version else 0
    wide = 4 if version == 2 else 2
    count, at = int.from_bytes(data[at + 6 : at + 6 + wide], "big"), at + 6 + wide
    for _ in range(count):
        if next(budget, None) is None or at >= len(data):
            raise ValueError("the image is damaged: an AVIF of too many items")
        at += wide
        in_idat = bool(version) and data[at + 1] & 15 == 1
        at += 4 if version else 2
        base, at = int.from_bytes(data[at : at + base_bytes], "big"), at + base_bytes
        extents, at = int.from_bytes(data[at : at + 2], "big"), at + 2
        held = b""
        for _ in range(min(extents, _MAX_PIECES)):
            at += index_bytes
            start = (
                base
                + int.from_bytes(data[at : at + offset_bytes], "big")
                + (idat if in_idat else 0)
            )
            at += offset_bytes
            length, at = int.from_bytes(data[at : at + length_bytes], "big"), at + length_bytes
            held += data[
                start : start + min(length or _MAX_ITEM_BYTES, _MAX_ITEM_BYTES - len(held))
            ]
        if extents > _MAX_PIECES:
            raise ValueError("the image is damaged: an AVIF item in too many pieces")
        yield held


def _sequence_sizes(coded: bytes, budget: Iterator[int]) -> list[tuple[int, int]]:
    """Height and width of each sequence header of AV1 (AV1 bitstream, 5.3 to 5.5); none in what
    is no AV1.
    """
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(coded) and not coded[at] & 0x81:
        if next(budget, None) is None:
            raise ValueError("the image is damaged: an AVIF of too many pieces")
        kind, extended, sized = coded[at] >> 3 & 15, coded[at] >> 2 & 1, coded[at] & 2
        at += 1 + extended
        size, shift = len(coded) - at, 0
        if sized:
            size = 0
            while shift < 56 and at < len(coded):  # leb128
                size |= (coded[at] & 0x7F) << shift
                shift, at = shift + 7, at + 1
                if not coded[at - 1] & 0x80:
                    break
        if kind == 1:
            found.append(_sequence_size(coded[at : at + min(size, 256)]))
        at += size
    return found


def _sequence_size(header: bytes) -> tuple[int, int]:
    bits = _Bits(header)
    bits.take(4)
    delay_bits = 0
    if bits.take(1):  # reduced_still_picture_header
        bits.take(5)
    else:
        if bits.take(1):  # timing_info
            bits.take(64)
            if bits.take(1):
                bits.skip_exponential()
            if bits.take(1):  # decoder_model_info
                delay_bits = bits.take(5) + 1
                bits.take(42)
        displayed = bits.take(1)
        for _ in range(bits.take(5) + 1):  # operating points
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if delay_bits and bits.take(1):
                bits.take(2 * delay_bits + 1)
            if displayed and bits.take(1):
                bits.take(4)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(width_bits) + 1, bits.take(height_bits) + 1
    return height, width


class _Bits:
    """Bits of some bytes, the highest of each byte first; zeros after their end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """The next bits as a number."""
        self._left -= count
        return (self._value >> self._left if self._left >= 0 else self._value << -self._left) & (
            (1 << count) - 1
        )

    def skip_exponential(self) -> None:
        """Passes over a number in ``uvlc`` (AV1 bitstream, 4.10.3)."""
        zeros = 0
        while zeros < 32 and not self.take(1):
            zeros += 1
        self.take(zeros)


def _boxes(
    data: bytes, at: int, end: int, budget: Iterator[int]
) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of what each box holds (ISO/IEC 14496-12, 4.2)."""
    while at + 8 <= end:
        length, name = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            length, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        stop = min(at + length, end) if length else end
        if stop < at + head or next(budget, None) is None:
            raise ValueError("the image is damaged: its boxes do not follow one another")
        yield name, at + head, stop
        at = stop
