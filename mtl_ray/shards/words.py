"""Many short words in one text."""

from collections.abc import Sequence
from typing import overload

import numpy as np


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
