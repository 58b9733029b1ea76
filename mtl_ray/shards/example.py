"""The protocol buffer ``tf.train.Example``, written and read without TensorFlow.

An Example is a map from names to lists of bytes, floats or 64-bit integers
(https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/example/example.proto,
https://protobuf.dev/programming-guides/encoding/).
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Feature = list[bytes] | NDArray[np.int64] | NDArray[np.float32]
ReadFeature = list[memoryview] | NDArray[np.int64] | NDArray[np.float32]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_BYTES, _FLOATS, _INTEGERS = 1, 2, 3
_SIGN = 1 << 63
_SMALL = [bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80, value >> 7]) for value in range(1 << 14)]
"""Integers that take one or two bytes: most that there are."""


def encode_example(features: Mapping[str, Feature]) -> list[bytes]:
    """The Example of some lists (bytes, or arrays of int64 or of float32), in parts to be laid end to end.

    The bytes in the lists are parts themselves: an image is not copied.
    """
    entries = [part for name, values in features.items() for part in _entry(name.encode(), values)]
    return [_head(1, sum(map(len, entries))), *entries]


def decode_example(data: memoryview) -> dict[str, ReadFeature]:
    """The lists of an Example; bytes are views into ``data``, so what is not looked at is not read.

    Raises:
        ValueError: if the bytes are not an Example.
    """
    found: dict[str, ReadFeature] = {}
    for features in _parts(data, 1):
        for entry in _parts(features, 1):
            names, values = list(_parts(entry, 1)), list(_parts(entry, 2))
            if len(names) != 1 or len(values) != 1:
                raise ValueError("an entry of an Example needs one name and one value")
            found[str(names[0], "utf-8")] = _decode_feature(values[0])
    return found


def _entry(name: bytes, values: Feature) -> list[bytes]:
    """An entry of the map, in parts."""
    kind, contents = _contents(values)
    parts = [part for content in contents for part in (_head(1, len(content)), content)]
    head = _head(kind, sum(map(len, parts)))
    size = len(head) + sum(map(len, parts))
    front = _head(1, len(name)) + name + _head(2, size) + head
    return [_head(1, len(front) - len(head) + size), front, *parts]


def _contents(values: Feature) -> tuple[int, list[bytes]]:
    """The kind of a list, and what stands in its field number 1."""
    if isinstance(values, list):
        return _BYTES, values
    if values.dtype == np.float32:
        return _FLOATS, [values.astype("<f4").tobytes()]
    assert values.dtype == np.int64, values.dtype
    return _INTEGERS, [b"".join(map(_varint, values.tolist()))]


def _head(number: int, length: int) -> bytes:
    """What stands before the content of a field that has a length."""
    return _SMALL[number << 3 | _LENGTH] + _varint(length)


def _varint(value: int) -> bytes:
    if 0 <= value < len(_SMALL):
        return _SMALL[value]
    value %= 1 << 64
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _decode_feature(data: memoryview) -> ReadFeature:
    kind, content = None, data[:0]
    for number, value in _fields(data):
        if number in (_BYTES, _FLOATS, _INTEGERS) and isinstance(value, memoryview):
            kind, content = number, value
    if kind == _BYTES:
        return list(_parts(content, 1))
    if kind == _FLOATS:
        return np.frombuffer(b"".join(_packed(content, "<I")), "<f4").astype(np.float32)
    numbers = [number for value in _values(content) for number in value]
    return np.array([value - (1 << 64) if value & _SIGN else value for value in numbers], np.int64)


def _values(content: memoryview) -> Iterator[Iterable[int]]:
    """The runs of integers of an Int64List, packed together or each by itself."""
    for number, value in _fields(content):
        if number == 1:
            yield [value] if isinstance(value, int) else _varints(value)


def _packed(content: memoryview, single: str) -> Iterator[bytes]:
    """The bytes of the numbers of a FloatList, packed together or each by itself."""
    for number, value in _fields(content):
        if number == 1:
            found = struct.pack(single, value) if isinstance(value, int) else bytes(value)
            if len(found) % 4:
                raise ValueError("a list of floats is cut short")
            yield found


def _parts(data: memoryview, number: int) -> Iterator[memoryview]:
    """The contents of all fields of one number that have a length."""
    for found, value in _fields(data):
        if found == number and isinstance(value, memoryview):
            yield value


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """The number of each field, and its integer or its content."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _read_varint(data, at)
            yield tag >> 3, value
            continue
        if wire == _LENGTH:
            length, at = _read_varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"an Example cannot have a field of wire type {wire}")
        if at + length > len(data):
            raise ValueError("an Example is cut short")
        content = data[at : at + length]
        yield tag >> 3, content if wire == _LENGTH else int.from_bytes(content, "little")
        at += length


def _varints(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _read_varint(data, at)
        yield value


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value % (1 << 64), at
        shift += 7
    raise ValueError("an Example is cut short within a number")
