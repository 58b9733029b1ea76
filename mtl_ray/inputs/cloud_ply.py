"""Polygon files, ``.ply``: their vertices are the points.

Format: G. Turk, The PLY polygon file format (1994).
"""

from dataclasses import dataclass, field

import numpy as np

from mtl_ray.inputs.cloud_columns import (
    MAX_HEADER_BYTES,
    check_size,
    cloud_of_columns,
    columns_of_text,
    records_of_bytes,
    whole_number,
)
from mtl_ray.inputs.point_cloud import PointCloud

MAX_PROPERTIES = 128
"""The most properties of a vertex."""

_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "float32": "f4", "double": "f8", "float64": "f8"},
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(kw_only=True, slots=True)
class _Element:
    """A kind of thing that the file lists, such as ``vertex``."""

    name: str
    count: int
    names: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    has_list: bool = False


def is_ply(data: bytes) -> bool:
    """Whether a file begins as a header does."""
    return data.startswith((b"ply\n", b"ply\r\n"))


def read_ply(data: bytes, limit: int) -> PointCloud:
    """The cloud of a file.

    Raises:
        TooLargeError: if it has more numbers than ``limit``.
        ValueError: in one sentence, if it is damaged.
    """
    order, elements, end = _read_header(data)
    place = next((i for i, each in enumerate(elements) if each.name == "vertex"), None)
    if place is None:
        raise ValueError("the .ply file has no element vertex")
    vertex, before = elements[place], elements[:place]
    if vertex.has_list or any(each.has_list for each in before):
        raise ValueError("the .ply file has lists in or before its vertices; write vertices first")
    check_size(vertex.count, len(vertex.names), limit)
    if order == "":
        for _ in range(sum(each.count for each in before)):
            end = data.find(b"\n", end) + 1
            if end == 0:
                raise ValueError("the .ply file ends before its vertices")
        body = data[end:]
        values = columns_of_text(body, vertex.count, len(vertex.names))
        return cloud_of_columns(vertex.names, list(values.T))
    skipped = sum(each.count * _row(each, order).itemsize for each in before)
    records = records_of_bytes(data[end + skipped :], vertex.count, _row(vertex, order))
    columns = [records[f"f{column}"] for column in range(len(vertex.names))]
    return cloud_of_columns(vertex.names, columns)


def _row(element: _Element, order: str) -> np.dtype[np.void]:
    return np.dtype([(f"f{place}", order + type_) for place, type_ in enumerate(element.types)])


def _read_header(data: bytes) -> tuple[str, list[_Element], int]:
    """The byte order, empty for text, the elements, and where the data begins."""
    order: str | None = None
    elements: list[_Element] = []
    end = 0
    while True:
        stop = data.find(b"\n", end, MAX_HEADER_BYTES)
        if stop < 0:
            raise ValueError("the header of the .ply file has no line end_header")
        words = data[end:stop].decode("ascii", "replace").split()
        end = stop + 1
        match words:
            case ["end_header"]:
                break
            case ["format", coding, _] if coding in _ORDERS:
                order = _ORDERS[coding]
            case ["element", name, count]:
                elements.append(_Element(name=name, count=whole_number(count, f"element {name}")))
            case ["property", "list", _, _, _] if elements:
                elements[-1].has_list = True
            case ["property", type_, name] if elements and type_ in _TYPES:
                elements[-1].names.append(name)
                elements[-1].types.append(_TYPES[type_])
            case [] | ["ply"] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise ValueError(f"the .ply file has the line {' '.join(words)[:60]!r}")
    if order is None:
        raise ValueError("the .ply file does not say its format")
    if any(len(each.names) > MAX_PROPERTIES for each in elements):
        raise ValueError(f"the .ply file has more than {MAX_PROPERTIES} properties")
    return order, elements, end
