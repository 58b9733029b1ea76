"""Work over many items that may be done elsewhere: analyses take such a function, and need not know of Ray."""

from collections.abc import Callable, Sequence
from typing import Any

from mtl_ray.terminal import progress_bar

Wide = Callable[[Callable[[Any], Any], Sequence[Any], str], list[Any]]
"""(function, items, what the progress bar is called) -> the results in the order of the items."""


def here(function: Callable[[Any], Any], items: Sequence[Any], description: str) -> list[Any]:
    """A ``Wide`` that does one item after another in this process."""
    return [function(item) for item in progress_bar(items, desc=description, unit="task")]
