"""Files of point clouds written without the code under test."""

import io
import struct
from collections.abc import Mapping, Sequence

import numpy as np

PCD_TYPES = {"f": "F", "i": "I", "u": "U"}


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def pack_lzf(plain: bytes) -> bytes:
    """LZF of LibLZF's format, with the simplest search for what was there before."""
    packed, literals, seen = bytearray(), bytearray(), dict[bytes, int]()

    def flush() -> None:
        for start in range(0, len(literals), 32):
            run = literals[start : start + 32]
            packed.append(len(run) - 1)
            packed.extend(run)
        literals.clear()

    place = 0
    while place < len(plain):
        key = plain[place : place + 3]
        before = seen.get(key, -1)
        seen[key] = place
        back = place - before - 1
        if before < 0 or back >= 8192 or len(key) < 3:
            literals.append(plain[place])
            place += 1
            continue
        length = 3
        while length < 264 and plain[before + length : before + length + 1] == (
            plain[place + length : place + length + 1] or b"?"
        ):
            length += 1
            if place + length >= len(plain):
                break
        flush()
        code = length - 2
        if code < 7:
            packed.append(code << 5 | back >> 8)
        else:
            packed += bytes((7 << 5 | back >> 8, code - 7))
        packed.append(back & 255)
        place += length
    flush()
    return bytes(packed)


def pcd(columns: Mapping[str, np.ndarray], coding: str = "binary", points: str = "") -> bytes:
    """A ``.pcd`` file; a column (N, C) is a field with the count C."""
    arrays = {name: np.atleast_2d(column.T).T for name, column in columns.items()}
    count = len(next(iter(arrays.values())))
    header = "\n".join([
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        f"FIELDS {' '.join(arrays)}",
        f"SIZE {' '.join(str(each.dtype.itemsize) for each in arrays.values())}",
        f"TYPE {' '.join(PCD_TYPES[each.dtype.kind] for each in arrays.values())}",
        f"COUNT {' '.join(str(each.shape[1]) for each in arrays.values())}",
        f"WIDTH {points or count}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {points or count}",
        f"DATA {coding}",
        "",
    ])  # fmt: skip
    if coding == "ascii":
        rows = zip(*(each.tolist() for each in arrays.values()), strict=True)
        text = "".join(
            " ".join(repr(value) for cell in row for value in cell) + "\n" for row in rows
        )
        return header.encode() + text.encode()
    if coding == "binary":
        rows = zip(*arrays.values(), strict=True)
        return header.encode() + b"".join(cell.tobytes() for row in rows for cell in row)
    plain = b"".join(each.tobytes() for each in arrays.values())
    packed = pack_lzf(plain)
    return header.encode() + struct.pack("<II", len(packed), len(plain)) + packed


PLY_TYPES = {"f4": "float", "f8": "double", "u1": "uchar", "u2": "ushort", "i4": "int"}


def ply(
    columns: Mapping[str, np.ndarray],
    coding: str = "binary_little_endian",
    before: Sequence[str] = (),
    prefix: bytes = b"",
    count: str = "",
) -> bytes:
    """A ``.ply`` file; ``before`` and ``prefix`` are an element before the vertices."""
    size = len(next(iter(columns.values())))
    header = "\n".join([
        "ply", f"format {coding} 1.0", "comment made by a test", *before,
        f"element vertex {count or size}",
        *(f"property {PLY_TYPES[col.dtype.str[1:]]} {name}" for name, col in columns.items()),
        "element face 0", "property list uchar int vertex_indices", "end_header", "",
    ])  # fmt: skip
    rows = list(zip(*columns.values(), strict=True))
    if coding == "ascii":
        body = "".join(" ".join(repr(value.item()) for value in row) + "\n" for row in rows)
        return header.encode() + prefix + body.encode()
    order = "<" if coding == "binary_little_endian" else ">"
    types = [column.dtype.newbyteorder(order) for column in columns.values()]
    cells = (np.array(v, t) for row in rows for v, t in zip(row, types, strict=True))
    return header.encode() + prefix + b"".join(cell.tobytes() for cell in cells)
