"""Files of the Point Cloud Library, ``.pcd``: ascii, binary and binary_compressed.

Format: https://pointclouds.org/documentation/tutorials/pcd_file_format.html
"""

import re
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.cloud_columns import (
    MAX_HEADER_BYTES,
    check_size,
    cloud_of_columns,
    columns_of_text,
    records_of_bytes,
    whole_number,
)
from mtl_ray.inputs.point_cloud import PointCloud

MAX_FIELDS = 128
"""The most fields of a file."""
MAX_COUNT = 4096
"""The most numbers of one field, such as a histogram."""

_COMMENT = b"# .PCD"
_START = re.compile(rb"(?:#[^\n]*\n|[ \t\r]*\n)*(?:VERSION|FIELDS|COLUMNS)[ \t]", re.IGNORECASE)
_TYPES = {
    ("F", 4): "<f4",
    ("F", 8): "<f8",
    **{("I", size): f"<i{size}" for size in (1, 2, 4, 8)},
    **{("U", size): f"<u{size}" for size in (1, 2, 4, 8)},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Header:
    """Fields with their types and counts, how many points, how they are written, and where."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    counts: tuple[int, ...]
    points: int
    coding: str
    end: int

    @property
    def numbers(self) -> int:
        """Of each point."""
        return sum(self.counts)

    def cloud(self, columns: list[NDArray[np.generic]]) -> PointCloud:
        """Of the columns of those fields that have one number."""
        names = [name for name, count in zip(self.names, self.counts, strict=True) if count == 1]
        return cloud_of_columns(names, columns)


def is_pcd(data: bytes) -> bool:
    """Whether a file begins as a header does: with comments, if any, and VERSION or FIELDS."""
    return data.startswith(_COMMENT) or _START.match(data[:MAX_HEADER_BYTES]) is not None


def read_pcd(data: bytes, limit: int) -> PointCloud:
    """The cloud of a file.

    Raises:
        TooLargeError: if it has more numbers than ``limit``.
        ValueError: in one sentence, if it is damaged.
    """
    header = _read_header(data)
    check_size(header.points, header.numbers, limit)
    body = data[header.end :]
    if header.coding == "ascii":
        values = columns_of_text(body, header.points, header.numbers, alone=True)
        starts = np.cumsum((0, *header.counts))[:-1]
        single = [start for start, count in zip(starts, header.counts, strict=True) if count == 1]
        return header.cloud([values[:, start] for start in single])
    if header.coding == "binary":
        row = np.dtype(
            [
                (f"f{place}", type_, (count,))
                for place, (type_, count) in enumerate(
                    zip(header.types, header.counts, strict=True)
                )
            ]
        )
        records = records_of_bytes(body, header.points, row, alone=True)
        return header.cloud(
            [records[f"f{place}"][:, 0] for place, count in enumerate(header.counts) if count == 1]
        )
    return header.cloud(_compressed_columns(body, header))


def _read_header(data: bytes) -> _Header:
    entries: dict[str, list[str]] = {}
    end = 0
    while "DATA" not in entries:
        stop = data.find(b"\n", end, MAX_HEADER_BYTES)
        if stop < 0:
            raise ValueError(
                f"the header of the .pcd file, up to {MAX_HEADER_BYTES:,} bytes, has no line DATA"
            )
        words = data[end:stop].decode("ascii", "replace").split()
        end = stop + 1
        if words and not words[0].startswith("#"):
            entries[words[0].upper()] = words[1:]
    names = tuple(entries.get("FIELDS") or entries.get("COLUMNS") or ())
    sizes, kinds = entries.get("SIZE", []), entries.get("TYPE", [])
    counts = entries.get("COUNT") or ["1"] * len(names)
    if not 3 <= len(names) <= MAX_FIELDS or {len(sizes), len(kinds), len(counts)} != {len(names)}:
        raise ValueError("FIELDS, SIZE, TYPE and COUNT of the .pcd file do not fit each other")
    types = [
        _TYPES.get((kind.upper(), whole_number(size, "SIZE")))
        for kind, size in zip(kinds, sizes, strict=True)
    ]
    known = tuple(type_ for type_ in types if type_ is not None)
    numbers = tuple(whole_number(count, "COUNT") for count in counts)
    if len(known) < len(types) or not all(1 <= number <= MAX_COUNT for number in numbers):
        raise ValueError("the .pcd file has a field of an unknown TYPE, SIZE or COUNT")
    coding = " ".join(entries["DATA"]).lower()
    if coding not in ("ascii", "binary", "binary_compressed"):
        raise ValueError(f"DATA of the .pcd file is {coding[:40]!r}")
    return _Header(
        names=names, types=known, counts=numbers, points=_points(entries), coding=coding, end=end
    )


def _points(entries: dict[str, list[str]]) -> int:
    found = {
        name: whole_number(" ".join(entries[name]), name)
        for name in ("POINTS", "WIDTH", "HEIGHT")
        if name in entries
    }
    area = found["WIDTH"] * found.get("HEIGHT", 1) if "WIDTH" in found else None
    points = found.get("POINTS", area)
    if points is None or area not in (None, points):
        raise ValueError("POINTS of the .pcd file is not WIDTH x HEIGHT")
    return points


def _compressed_columns(body: bytes, header: _Header) -> list[NDArray[np.generic]]:
    """The fields one after the other, each (points,); those with more than one number are not
    returned.
    """
    sizes = [
        np.dtype(type_).itemsize * count * header.points
        for type_, count in zip(header.types, header.counts, strict=True)
    ]
    if not header.points:
        plain = b""
    else:
        if len(body) < 8:
            raise ValueError("the .pcd file ends before its compressed points")
        packed, unpacked = struct.unpack_from("<II", body)
        if unpacked != sum(sizes) or packed > len(body) - 8:
            raise ValueError(
                f"the .pcd file has {len(body) - 8:,} bytes for {unpacked:,} of points, its header "
                f"says {packed:,} for {sum(sizes):,}"
            )
        plain = decompress_lzf(body[8 : 8 + packed], unpacked)
    columns: list[NDArray[np.generic]] = []
    start = 0
    for type_, count, size in zip(header.types, header.counts, sizes, strict=True):
        if count == 1:
            columns.append(np.frombuffer(plain, type_, count=header.points, offset=start))
        start += size
    return columns


def decompress_lzf(packed: bytes, size: int) -> bytes:
    """The ``size`` bytes that LibLZF packed.

    Raises:
        ValueError: if it gives other than ``size`` bytes; no more are ever held.
    """
    plain = bytearray()
    place, end = 0, len(packed)
    try:
        while place < end:
            control = packed[place]
            place += 1
            if control < 32:  # that many bytes, and one, as they are
                run = packed[place : place + control + 1]
                if len(run) <= control:
                    raise IndexError
                plain += run
                place += control + 1
            else:  # bytes that were there before
                length = control >> 5
                if length == 7:
                    length += packed[place]
                    place += 1
                back = ((control & 31) << 8 | packed[place]) + 1
                place += 1
                start, length = len(plain) - back, length + 2
                if start < 0:
                    raise IndexError
                seen = plain[start : start + length]  # the copy may reach into itself
                plain += (seen * (length // len(seen) + 1))[:length]
            if len(plain) > size:
                raise IndexError
    except IndexError:
        raise ValueError("the compressed points of the .pcd file are damaged") from None
    if len(plain) != size:
        raise ValueError("the compressed points of the .pcd file are damaged")
    return bytes(plain)
