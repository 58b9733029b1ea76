"""The same function over many items: in this process, or as Ray tasks."""

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError

from mtl_ray.analysis.executor import Executor, run_serial
from mtl_ray.distributed.session import session
from mtl_ray.terminal import progress_bar

Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 5
"""How often a task runs again when its node or its process is lost. An exception of the function
itself ends everything."""
_CHECK_EVERY_S = 5.0
_AT_LEAST = 32
"""At least this many tasks are submitted at a time: a cluster grows by the tasks that wait."""


def map_tasks(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    description: str,
    workers: int | None,
    unit: str = "task",
) -> Iterator[Result]:
    """``function(item)`` in the order of the items, with a progress bar.

    With one worker or one item it runs here, without Ray.

    Args:
        function: see ``fan_out``.
        items: see ``fan_out``.
        description: label of the progress bar.
        workers: tasks at a time; the default is that of ``fan_out``.
        unit: the progress bar's word for an item that runs in this process.
    """
    if workers == 1 or len(items) <= 1:
        yield from map(function, progress_bar(items, desc=description, unit=unit))
        return
    with session():
        yield from fan_out(function, items, description=description, workers=workers)


@contextmanager
def open_executor(workers: int) -> Iterator[Executor]:
    """An executor for the code inside.

    URIs that the functions read and write must mean the same on every machine of the cluster.

    Args:
        workers: tasks at a time; with 1 they run in this process, without Ray.

    Raises:
        ValueError: if ``workers`` is below 1.
    """
    if workers < 1:
        raise ValueError(f"--workers is {workers}; at least 1 is needed")
    if workers == 1:
        yield run_serial
        return

    with session():
        yield ray_executor(workers)


def ray_executor(workers: int) -> Executor:
    """An executor that runs ``workers`` Ray tasks at a time, for code inside a ``session``."""

    def run(function: Callable[[Any], Any], items: Sequence[Any], description: str) -> list[Any]:
        return list(fan_out(function, items, description=description, workers=workers))

    return run


def fan_out(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    description: str,
    num_cpus: float = 1,
    workers: int | None = None,
) -> Generator[Result, None, None]:
    """The results of ``function(item)`` in the order of the items, computed as Ray tasks inside a
    ``session``.

    The number of submitted tasks is bounded, so neither a million items nor a slow first one fills
    the memory. Machines with GPUs are avoided as long as there are others.

    A task runs again if its machine is lost. Ray does that at once if the machine closed its
    connections. If it did not (its power or its network failed) Ray would wait for minutes (ray
    #24969, #63405), so all pending tasks are submitted again, to other machines. No task is ever
    cancelled: Ray 2.60 ends the whole driver if a task is cancelled at the moment when it finishes.
    Pending tasks end with the session.

    Args:
        function: of a module, or a ``functools.partial`` of one; without side effects that a second
            run would spoil.
        items: small; they are pickled.
        description: label of the progress bar.
        num_cpus: CPUs of a task, more than 0.
        workers: most tasks at a time; by default two for each CPU slot of the cluster, and enough
            to make it grow.

    Raises:
        Exception: the first exception of the function, with its own type.
        RuntimeError: if the node of a task was lost too often.
    """
    task = ray.remote(num_cpus=num_cpus, max_retries=RETRIES)(_call)
    shared = ray.put(function)
    known, lost = _alive(), set[str]()
    selector = _avoiding(num_cpus, lost)
    pending: dict[ray.ObjectRef, int] = {}
    done: dict[int, Result] = {}
    sent = given = 0
    with progress_bar(total=len(items), desc=description, unit="task") as bar:
        while given < len(items):
            limit = workers or max(
                _AT_LEAST, int(2 * ray.cluster_resources().get("CPU", 1) / num_cpus)
            )
            while sent < len(items) and len(pending) < limit and sent - given < 4 * limit:
                pending[task.options(label_selector=selector).remote(shared, items[sent])] = sent
                sent += 1
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=_CHECK_EVERY_S)
            if not ready:
                before, known = known, _alive()
                gone = before - known
                lost |= gone
                avoided, selector = selector, _avoiding(num_cpus, lost)
                if gone or (avoided and not selector):
                    sender = task.options(label_selector=selector)
                    pending = {
                        sender.remote(shared, items[index]): index for index in pending.values()
                    }
            for reference in ready:
                done[pending.pop(reference)] = _result(reference, description)
                bar.update()
            while given in done:
                yield done.pop(given)
                given += 1


def _alive() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _avoiding(num_cpus: float, lost: Collection[str]) -> dict[str, str]:
    """The label selector of machines that were not lost and have no GPU.

    GPU machines are used if all that can hold a task have one.
    """
    nodes = [
        node
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= num_cpus
    ]
    gpus = [node["NodeID"] for node in nodes if node["Resources"].get("GPU", 0)]
    avoided = [*(gpus if len(gpus) < len(nodes) else ()), *sorted(lost)]
    return {ray._raylet.RAY_NODE_ID_KEY: f"!in({','.join(avoided)})"} if avoided else {}


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    """The body of a task: ``ray.remote`` takes functions, but no partials."""
    return function(item)


def _result(reference: ray.ObjectRef, description: str) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise RuntimeError(
            f"{description}: a task was lost {RETRIES + 1} times, the last time so: {error}"
        ) from error
