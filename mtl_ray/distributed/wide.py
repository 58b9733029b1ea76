"""Work over many items: in this process, or as Ray tasks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from mtl_ray.analysis.wide import Wide, here
from mtl_ray.distributed.fan_out import fan_out
from mtl_ray.distributed.session import session
from mtl_ray.terminal import progress_bar

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(
    function: Callable[[Item], Result], items: Sequence[Item], *, description: str, workers: int | None, unit: str = "task"
) -> Iterator[Result]:
    """``function(item)`` in the order of the items, with a progress bar; with one worker, or for a single item, without Ray.

    Args:
        function: see ``fan_out``.
        items: see there.
        description: what the progress bar is called.
        workers: tasks at a time; by default as ``fan_out`` has it.
        unit: what an item is called where the work is done here.
    """
    if workers == 1 or len(items) <= 1:
        yield from map(function, progress_bar(items, desc=description, unit=unit))
        return
    with session():
        yield from fan_out(function, items, description=description, workers=workers)


@contextmanager
def wide(workers: int) -> Iterator[Wide]:
    """How the work inside is done; what the functions read and write must mean the same on every machine of the cluster.

    Args:
        workers: tasks at a time; 1: in this process, without Ray.

    Raises:
        ValueError: if that is below 1.
    """
    if workers < 1:
        raise ValueError(f"--workers is {workers}; at least 1 is needed")
    if workers == 1:
        yield here
        return

    with session():
        yield tasks(workers)


def tasks(workers: int) -> Wide:
    """So many Ray tasks at a time, inside a ``session``."""

    def there(function: Callable[[Any], Any], items: Sequence[Any], description: str) -> list[Any]:
        return list(fan_out(function, items, description=description, workers=workers))

    return there
