"""Messages of Protocol Buffers without their schema: the wire format, read within bounds
(https://protobuf.dev/programming-guides/encoding).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_FIELDS = 4_000_000
"""Of one message; unpacked numbers of a range image are fields."""
_INT64 = 1 << 63


class Message:
    """The fields of one message by number, of which nested ones are read when they are asked for.

    Args:
        data: its bytes.
        most_fields: of it, and of each nested one.

    Raises:
        ValueError: in one sentence, if it is cut short or no message.
    """

    def __init__(self, data: bytes | memoryview, most_fields: int = _MOST_FIELDS) -> None:
        self._fields: dict[int, list[tuple[int, int | memoryview]]] = {}
        self._most_fields = most_fields
        view, place = memoryview(data), 0
        for _ in range(most_fields):
            if place >= len(view):
                return
            key, place = _varint(view, place)
            kind, number = key & 7, key >> 3
            value: int | memoryview
            if kind == _VARINT:
                value, place = _varint(view, place)
            else:
                length, place = _length(view, place, kind)
                value = view[place : place + length]
                place += length
                if len(value) < length:
                    raise ValueError("a message is cut short")
            self._fields.setdefault(number, []).append((kind, value))
        if place < len(view):
            raise ValueError(f"a message has more than {most_fields:,} fields")

    def chunks(self, number: int) -> Sequence[memoryview]:
        """The bytes of a field that may be repeated."""
        return self._of(number, _BYTES)

    def messages(self, number: int) -> list["Message"]:
        """The messages of a field that may be repeated."""
        return [Message(value, self._most_fields) for value in self._of(number, _BYTES)]

    def message(self, number: int) -> "Message":
        """The message of a field, an empty one if it is absent; of several the last."""
        found = self._of(number, _BYTES)
        return Message(found[-1] if found else b"", self._most_fields)

    def data(self, number: int) -> memoryview:
        """The bytes of a field, none if it is absent."""
        found = self._of(number, _BYTES)
        return found[-1] if found else memoryview(b"")

    def text(self, number: int) -> str:
        """The text of a field, empty if it is absent."""
        return bytes(self.data(number)).decode("utf-8", "replace")

    def integer(self, number: int) -> int:
        """An int32, int64 or enum, 0 if it is absent."""
        found = self.integers(number)
        return found[-1] if found else 0

    def integers(self, number: int) -> list[int]:
        """Repeated integers, packed or not."""
        found: list[int] = []
        for kind, value in self._fields.get(number, ()):
            if isinstance(value, int):
                found.append(_signed(value))
            elif kind == _BYTES:
                place = 0
                while place < len(value):
                    each, place = _varint(value, place)
                    found.append(_signed(each))
        return found

    def double(self, number: int) -> float:
        """A double, 0 if it is absent."""
        found = self.doubles(number)
        return float(found[-1]) if len(found) else 0.0

    def doubles(self, number: int) -> NDArray[np.float64]:
        """Repeated doubles, packed or not."""
        return self._numbers(number, _FIXED64, "<f8").astype(np.float64)

    def floats(self, number: int) -> NDArray[np.float32]:
        """Repeated floats, packed or not."""
        return self._numbers(number, _FIXED32, "<f4").astype(np.float32)

    def _numbers(self, number: int, kind: int, dtype: str) -> NDArray[np.floating]:
        parts = [
            bytes(value)
            for found, value in self._fields.get(number, ())
            if found in (kind, _BYTES) and not isinstance(value, int)
        ]
        data = b"".join(parts)
        if len(data) % np.dtype(dtype).itemsize:
            raise ValueError("a message has numbers that are cut short")
        return np.frombuffer(data, dtype)

    def _of(self, number: int, kind: int) -> Sequence[memoryview]:
        return [
            value
            for found, value in self._fields.get(number, ())
            if found == kind and not isinstance(value, int)
        ]


def _length(view: memoryview, place: int, kind: int) -> tuple[int, int]:
    """How long the value of a field is that is no varint, and where it begins."""
    if kind == _BYTES:
        return _varint(view, place)
    if kind == _FIXED64:
        return 8, place
    if kind == _FIXED32:
        return 4, place
    raise ValueError(f"a message has a field of kind {kind}, which is none")


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(view):
            raise ValueError("a message is cut short")
        byte = view[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place
    raise ValueError("a message has a number of more than ten bytes")


def _signed(value: int) -> int:
    return value - 2 * _INT64 if value >= _INT64 else value
