"""The columns of a manifest: numbers or names as one text with blanks between them.

A large index is read without a Python object for each entry.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.int64]


class Words(Sequence[str]):
    """The words of a text with blanks between them, without an object for each."""

    def __init__(self, text: str) -> None:
        """Finds the blanks of an ASCII text."""
        self._text = text.encode("ascii")
        blanks = np.flatnonzero(np.frombuffer(self._text, np.uint8) == ord(" "))
        self._starts = np.concatenate([[0], blanks + 1]) if text else np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        start = int(self._starts[index])
        stop = self._text.find(b" ", start)
        return self._text[start : len(self._text) if stop < 0 else stop].decode()


def join_numbers(numbers: Iterable[int]) -> str:
    """The text of a column of numbers."""
    return " ".join(map(str, numbers))


def read_numbers(columns: dict[str, Any], name: str) -> Column:
    """The numbers of a column; see ``take``."""
    return np.fromstring(take(columns, name, str), dtype=np.int64, sep=" ")


def read_words(columns: dict[str, Any], name: str, pattern: re.Pattern[str]) -> Words:
    """The names of a column; see ``take``.

    Raises:
        ValueError: if the text does not match ``pattern``.
    """
    text = take(columns, name, str)
    if not pattern.fullmatch(text):
        raise ValueError(f"its {name} column holds something else than names of files or checksums")
    return Words(text)


def take(content: dict[str, Any], name: str, expected: type) -> Any:
    """Removes an entry of parsed JSON and returns it.

    Raises:
        ValueError: if it is missing or of another type.
    """
    value = content.pop(name, None)
    if type(value) is not expected:
        raise ValueError(f"its {name!r} is missing or not of type {expected.__name__}")
    return value
