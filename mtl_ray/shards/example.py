"""The protocol buffer ``tf.train.Example``, written and read without TensorFlow.

An Example is a map from names to lists of bytes, floats or 64-bit integers
(https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/example/example.proto,
https://protobuf.dev/programming-guides/encoding/).
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.columns import Feature, ReadFeature

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_BYTES, _FLOATS, _INTEGERS = 1, 2, 3
_SIGN = 1 << 63
_SMALL = [
    bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80, value >> 7])
    for value in range(1 << 14)
]
"""Integers that take one or two bytes: most that there are."""
_TAGS = [bytes([number << 3 | _LENGTH]) for number in range(4)]


def encode_example(features: Mapping[str, Feature]) -> list[bytes]:
    """The Example of some lists (bytes, or arrays of int64 or of float32), in parts to be laid end
    to end.

    Lists of bytes are parts themselves: an image is not copied.
    """
    parts = [part for name, values in features.items() for part in _entry(name.encode(), values)]
    return [_head(1, sum(map(len, parts))), *parts]


def decode_example(data: memoryview) -> dict[str, ReadFeature]:
    """The lists of an Example; bytes are views into ``data``, so what is not looked at is not read.

    Raises:
        ValueError: if the bytes are not an Example.
    """
    found: dict[str, ReadFeature] = {}
    try:
        for features in _contents_of(data, 1):
            for entry in _contents_of(features, 1):
                parts = dict(_fields(entry))
                found[str(parts[1], "utf-8")] = _decode_feature(parts[2])
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError(f"an Example is damaged: {error}") from error
    return found


def _entry(name: bytes, values: Feature) -> list[bytes]:
    """An entry of the map, in parts: what comes before the list, and the list."""
    if not isinstance(values, list):
        return [_field(1, _field(1, name) + _field(2, _numbers(values)))]
    parts = [part for value in values for part in (_head(1, len(value)), value)]
    size = sum(map(len, parts))
    head = _head(_BYTES, size)
    front = _field(1, name) + _head(2, len(head) + size) + head
    return [_head(1, len(front) + size) + front, *parts]


def _numbers(values: NDArray[np.int64] | NDArray[np.float32]) -> bytes:
    if values.dtype.kind == "f":
        return _field(_FLOATS, _field(1, values.astype("<f4").tobytes()))
    assert values.dtype.kind == "i", values.dtype
    return _field(_INTEGERS, _field(1, b"".join([_varint(value) for value in values.tolist()])))


def _field(number: int, content: bytes) -> bytes:
    return _head(number, len(content)) + content


def _head(number: int, length: int) -> bytes:
    """What stands before the content of a field that has a length."""
    return _TAGS[number] + (_SMALL[length] if length < len(_SMALL) else _varint(length))


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
    kind, content = _INTEGERS, data[:0]
    for number, value in _fields(data):
        if number in (_BYTES, _FLOATS, _INTEGERS):
            kind, content = number, value
    if kind == _BYTES:
        return list(_contents_of(content, 1))
    values = [value for number, value in _fields(content) if number == 1]
    if kind == _FLOATS:
        packed = b"".join(
            struct.pack("<I", value) if isinstance(value, int) else value for value in values
        )
        return np.frombuffer(packed, "<f4").astype(np.float32)
    numbers = [
        number
        for value in values
        for number in ([_signed(value)] if isinstance(value, int) else _integers(value))
    ]
    return np.array(numbers, np.int64)


def _contents_of(data: memoryview, number: int) -> Iterator[memoryview]:
    """The contents of all fields of one number."""
    return (value for found, value in _fields(data) if found == number)


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """The number of each field, and its content; an integer where it has no length."""
    at, size = 0, len(data)
    while at < size:
        tag, at = _read_varint(data, at)
        wire = tag & 7
        value, after = _read_varint(data, at) if wire in (_VARINT, _LENGTH) else (0, at)
        if wire == _VARINT:
            yield tag >> 3, value
        elif wire == _LENGTH:
            at, after = after, after + value
            yield tag >> 3, data[at:after]
        elif wire in (_FIXED32, _FIXED64):
            after = at + (4 if wire == _FIXED32 else 8)
            yield tag >> 3, int.from_bytes(data[at:after], "little")
        else:
            raise ValueError(f"an Example cannot have a field of wire type {wire}")
        at = after
    if at > size:
        raise ValueError("an Example is cut short")


def _integers(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _read_varint(data, at)
        yield _signed(value)


def _signed(value: int) -> int:
    return value - (1 << 64) if value & _SIGN else value


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while shift < 70:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value % (1 << 64), at + 1
        shift += 7
    raise ValueError("an Example holds a number of more than ten bytes")
