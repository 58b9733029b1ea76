"""How many workers the cluster has room for: now, once others are done, and once it has grown."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import ray
from ray._private.state import available_resources_per_node, state
from ray.util.placement_group import placement_group, remove_placement_group

from mtl_ray.distributed.growth import hopeful
from mtl_ray.experiment import ExperimentConfig

SAY_EVERY_S = 30.0
_log = logging.getLogger(__name__)
Resources = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A node of the cluster that is there to stay, as far as is known.

    Attributes:
        node_id: Ray's hexadecimal number of it.
        total: what it has.
        free: what nobody uses.
    """

    node_id: str
    total: Resources
    free: Resources


def machines() -> list[Machine]:
    """All nodes that are alive and are not being drained."""
    leaving, free = draining(), available_resources_per_node()
    alive = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]
    return [Machine(node_id=node["NodeID"], total=node["Resources"], free=free.get(node["NodeID"], {})) for node in alive]


def draining() -> set[str]:
    """The nodes that will be taken away soon: by a notice of the cloud, or since they are idle."""
    return set(state.get_draining_nodes())


def fit(rooms: Iterable[Resources], request: Resources) -> int:
    """How many times a request fits into some machines."""
    return sum(min(int(room.get(name, 0) / amount + 1e-6) for name, amount in request.items()) for room in rooms)


def request_of(config: ExperimentConfig) -> dict[str, float]:
    """What one worker asks of Ray. ``auto`` takes a GPU where there are enough of them at this moment for the run to start.

    If there are some, but too few, it is said that they stay unused.
    """
    runtime = config.runtime
    cpus, gpu = {"CPU": runtime.cpus_per_worker}, {"GPU": runtime.gpus_per_worker}
    if runtime.device == "auto":
        most, fewest = fit((machine.total for machine in machines()), gpu), runtime.fewest_workers
        if 0 < most < fewest:
            _log.warning(
                "the run computes on CPUs: %d workers would need a GPU each, and there are %d. Set runtime.workers=%d to compute on GPUs, "
                "or runtime.device=cpu",
                fewest,
                most,
                most,
            )
        return cpus | gpu if most >= fewest else cpus
    return cpus | gpu if runtime.device == "gpu" else cpus


def wait_for_room(workers: int, request: Resources, *, private: bool, patience_s: float, watch: Callable[[], None]) -> None:
    """Returns when so many workers fit, saying what it waits for meanwhile.

    It waits while others use what is needed, and while an autoscaler may still add it. A placement group that nobody uses stands
    for the wish, so that an autoscaler sees it.

    Args:
        workers: how many.
        request: of each.
        private: the Ray is this job's own, so nothing can ever join it.
        patience_s: how long machines may take to join a cluster that does not grow by itself.
        watch: called about twice a second; may raise.

    Raises:
        ValueError: if they will never fit: what they ask, and what the cluster has.
    """
    said = hoped = time.monotonic()
    wish = None
    try:
        while fit((machine.free for machine in machines()), request) < workers:
            lacking = fit((machine.total for machine in machines()), request) < workers
            if lacking and (private or time.monotonic() - hoped > patience_s):
                raise ValueError(
                    f"there is no room for the run: {_words(workers, request)}. "
                    "Set runtime.workers, runtime.cpus_per_worker or runtime.device"
                )
            if wish is None:
                _log.warning("the run waits for room: %s", _words(workers, request))
                wish = placement_group([dict(request)] * workers)
            if wish.wait(0):
                return
            now = time.monotonic()
            if not lacking or hopeful(wish):
                hoped = now
            if now - said > SAY_EVERY_S:
                said = now
                _log.warning("the run waits for room: %s", _words(workers, request))
            watch()
            time.sleep(0.5)
    finally:
        if wish is not None:
            remove_placement_group(wish)


def _words(workers: int, request: Resources) -> str:
    asked = ", ".join(f"{name}={amount:g}" for name, amount in request.items())
    had = [f"{', '.join(f'{name}={machine.total.get(name, 0):g}' for name in request)}" for machine in machines()]
    used = sum(fit([machine.total], request) - fit([machine.free], request) for machine in machines())
    return f"{workers} workers ask for {asked} each; the machines have {'; '.join(had) or 'none that stays'}" + (
        f" ({used} such places are taken)" if used else ""
    )


def cpus_of(config: ExperimentConfig) -> int:
    """What a private Ray must believe to have."""
    return math.ceil(config.runtime.most_workers * config.runtime.cpus_per_worker)
