"""An executor runs a function over many items, possibly on other machines.

Analyses take one, so they need not know Ray.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mtl_ray.terminal import progress_bar

Executor = Callable[[Callable[[Any], Any], Sequence[Any], str], list[Any]]
"""(function, items, label of the progress bar) -> the results in the order of the items."""


def run_serial(function: Callable[[Any], Any], items: Sequence[Any], description: str) -> list[Any]:
    """An ``Executor`` that processes one item after another in this process."""
    return [function(item) for item in progress_bar(items, desc=description, unit="task")]
