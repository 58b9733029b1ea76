"""Polygon files, ``.ply``: their vertices are the points.

Format: G. Turk, The PLY polygon file format (1994).
"""

from dataclasses import dataclass, field
from typing import Literal

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
MAX_LISTS = 1_000_000
"""The most items with lists, such as faces, before the vertices of a binary file. Their lengths are
read one by one.
"""

_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "float32": "f4", "double": "f8", "float64": "f8"},
}
_NO_VERTICES = "the .ply file ends before its vertices"
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Property:
    """A property of an element: a number, or a list of numbers if ``length`` is not empty; it is
    then the type of the length that precedes the list.
    """

    name: str
    type: str
    length: str = ""


@dataclass(kw_only=True, slots=True)
class _Element:
    """A kind of thing that the file lists, such as ``vertex``."""

    name: str
    count: int
    properties: list[_Property] = field(default_factory=list)

    @property
    def has_list(self) -> bool:
        """Whether a property is a list, so that items differ in size."""
        return any(each.length for each in self.properties)

    @property
    def names(self) -> list[str]:
        """Names of its properties."""
        return [each.name for each in self.properties]


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
    if vertex.has_list:
        raise ValueError("the .ply file has lists in its vertices; write single numbers")
    check_size(vertex.count, len(vertex.names), limit)
    if order == "":
        for _ in range(sum(each.count for each in before)):
            end = data.find(b"\n", end) + 1
            if end == 0:
                raise ValueError(_NO_VERTICES)
        body = data[end:]
        values = columns_of_text(body, vertex.count, len(vertex.names), alone=False)
        return cloud_of_columns(vertex.names, list(values.T))
    for each in before:
        end = _behind(each, order, data, end)
    records = records_of_bytes(data[end:], vertex.count, _row(vertex, order), alone=False)
    columns = [records[f"f{column}"] for column in range(len(vertex.names))]
    return cloud_of_columns(vertex.names, columns)


def _row(element: _Element, order: str) -> np.dtype[np.void]:
    types = (each.type for each in element.properties)
    return np.dtype([(f"f{place}", order + type_) for place, type_ in enumerate(types)])


def _behind(element: _Element, order: str, data: bytes, start: int) -> int:
    """The offset after the last item of an element whose data begin at offset ``start``."""
    if not element.has_list:
        return start + element.count * _row(element, order).itemsize
    if element.count > MAX_LISTS:
        raise ValueError(
            f"the .ply file has more than {MAX_LISTS:,} lists before its vertices; write vertices "
            "first"
        )
    place = start
    first: Literal["little", "big"] = "little" if order == "<" else "big"
    for _ in range(element.count):
        for each in element.properties:
            number = 1
            if each.length:
                end = place + int(each.length[1])
                if end > len(data):
                    raise ValueError(_NO_VERTICES)
                number = int.from_bytes(data[place:end], first)
                place = end
            place += number * int(each.type[1])
    return place


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
            case ["property", "list", length, type_, name] if (
                elements and _TYPES.get(length, "f")[0] != "f" and type_ in _TYPES
            ):
                listed = _Property(name=name, type=_TYPES[type_], length=_TYPES[length])
                elements[-1].properties.append(listed)
            case ["property", type_, name] if elements and type_ in _TYPES:
                elements[-1].properties.append(_Property(name=name, type=_TYPES[type_]))
            case [] | ["ply"] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise ValueError(f"the .ply file has the line {' '.join(words)[:60]!r}")
    if order is None:
        raise ValueError("the .ply file does not say its format")
    if any(len(each.properties) > MAX_PROPERTIES for each in elements):
        raise ValueError(f"the .ply file has more than {MAX_PROPERTIES} properties")
    return order, elements, end
