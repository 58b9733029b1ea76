"""The same function over many items, each as a Ray task, with a progress bar."""

from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError

from mtl_ray.terminal import progress_bar

Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 5
"""How often a task is run again when its node or its process is lost; an exception of the function itself ends the whole."""
_LOOK_EVERY_S = 5.0
_AT_LEAST = 32
"""So many tasks are sent off in any case: a cluster grows by the tasks that wait."""


def fan_out(
    function: Callable[[Item], Result], items: Sequence[Item], *, description: str, num_cpus: float = 1, workers: int | None = None
) -> Generator[Result, None, None]:
    """The results of ``function(item)`` in the order of the items, computed as Ray tasks inside a ``session``.

    Only a bounded number of tasks is sent off at a time, so neither a million items nor a slow first one fills the memory.
    Machines with GPUs are left to those who need them, as long as there are others. A task whose machine is lost runs again: by Ray,
    which sees it at once where the machine closed its connections; where it did not (its power or its network failed) Ray would wait
    for minutes (ray #24969, #63405), so all that is under way is sent off again, away from that machine. Nothing is ever cancelled: Ray
    2.60 ends the whole driver if a task is cancelled in the moment in which it is done; what is under way ends with the session.

    Args:
        function: of a module, or a ``functools.partial`` of one; without side effects that a second run would spoil.
        items: small; they are pickled.
        description: what the progress bar is called.
        num_cpus: that a task needs, more than 0.
        workers: at most so many tasks at a time; by default two for each place in the cluster, and enough to make one grow.

    Raises:
        Exception: whatever the function raised first, with its own type.
        RuntimeError: if a task's node was lost too often.
    """
    task = ray.remote(num_cpus=num_cpus, max_retries=RETRIES)(_call)
    shared = ray.put(function)
    known, lost = _alive(), set[str]()
    selector = _away(num_cpus, lost)
    pending: dict[ray.ObjectRef, int] = {}
    done: dict[int, Result] = {}
    sent = given = 0
    with progress_bar(total=len(items), desc=description, unit="task") as bar:
        while given < len(items):
            limit = workers or max(_AT_LEAST, int(2 * ray.cluster_resources().get("CPU", 1) / num_cpus))
            while sent < len(items) and len(pending) < limit and sent - given < 4 * limit:
                pending[task.options(label_selector=selector).remote(shared, items[sent])] = sent
                sent += 1
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=_LOOK_EVERY_S)
            if not ready:
                before, known = known, _alive()
                gone = before - known
                lost |= gone
                avoided, selector = selector, _away(num_cpus, lost)
                if gone or (avoided and not selector):
                    sender = task.options(label_selector=selector)
                    pending = {sender.remote(shared, items[index]): index for index in pending.values()}
            for reference in ready:
                done[pending.pop(reference)] = _result(reference, description)
                bar.update()
            while given in done:
                yield done.pop(given)
                given += 1


def _alive() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _away(num_cpus: float, lost: Collection[str]) -> dict[str, str]:
    """The label selector of machines that were not lost and have no GPU (unless all have one that can take a task)."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= num_cpus]
    gpus = [node["NodeID"] for node in nodes if node["Resources"].get("GPU", 0)]
    avoided = [*(gpus if len(gpus) < len(nodes) else ()), *sorted(lost)]
    return {ray._raylet.RAY_NODE_ID_KEY: f"!in({','.join(avoided)})"} if avoided else {}


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    """What a task does: ``ray.remote`` itself takes functions only, and not their partials."""
    return function(item)


def _result(reference: ray.ObjectRef, description: str) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"{description}: a task was lost {RETRIES + 1} times, the last time so: {error}") from error
