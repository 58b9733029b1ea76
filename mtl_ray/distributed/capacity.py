"""How many workers the cluster has room for: now, when other jobs have finished, and when an
autoscaler has added machines.

Ray's autoscalers do not say how far they can grow (``get_cluster_config`` is empty except for one
vendor's). They do say which pending requests can never be met. So a run sends a request and watches
whether it is refused. A cluster of fixed machines has an autoscaler too, which refuses every
request that its machines cannot hold.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import ray
from ray._private.state import available_resources_per_node, state
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.autoscaler.sdk import request_resources
from ray.core.generated.autoscaler_pb2 import (
    AutoscalingState,
    ClusterResourceConstraint,
    GetClusterStatusReply,
)
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from mtl_ray.experiment import ExperimentConfig

LOG_EVERY_S = 30.0
ANSWER_S = 20.0
"""A request that an autoscaler has not refused after this time can be met."""
_log = logging.getLogger(__name__)
Resources = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A node of the cluster that is alive and not being drained.

    Attributes:
        node_id: Ray's hexadecimal id.
        total: all its resources.
        free: the resources that nobody uses.
    """

    node_id: str
    total: Resources
    free: Resources


def machines() -> list[Machine]:
    """All nodes that are alive and not being drained."""
    leaving, free = draining(), available_resources_per_node()
    alive = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]
    return [
        Machine(node_id=node["NodeID"], total=node["Resources"], free=free.get(node["NodeID"], {}))
        for node in alive
    ]


def draining() -> set[str]:
    """The ids of the nodes that will go away soon: the cloud announced it, or they are idle."""
    return set(state.get_draining_nodes())


def num_fitting(available: Iterable[Resources], request: Resources) -> int:
    """How many times a request fits into the resources of some machines."""
    return sum(
        min(int(resources.get(name, 0) / amount + 1e-6) for name, amount in request.items())
        for resources in available
    )


def resources_per_worker(config: ExperimentConfig) -> dict[str, float]:
    """The resources of one worker.

    With ``device: auto`` it gets a GPU if there are enough GPUs now for the run to start. If there
    are some GPUs, but too few, a warning says that they stay unused.
    """
    runtime = config.runtime
    cpus, gpu = {"CPU": runtime.cpus_per_worker}, {"GPU": runtime.gpus_per_worker}
    if runtime.device == "auto":
        most, fewest = (
            num_fitting((machine.total for machine in machines()), gpu),
            runtime.fewest_workers,
        )
        if 0 < most < fewest:
            _log.warning(
                "the run computes on CPUs: %d workers would need a GPU each, and there are %d. Set "
                "runtime.workers=%d to compute on GPUs, "
                "or runtime.device=cpu",
                fewest,
                most,
                most,
            )
        return cpus | gpu if most >= fewest else cpus
    return cpus | gpu if runtime.device == "gpu" else cpus


def cpus_of_all_workers(config: ExperimentConfig) -> int:
    """The number of CPUs that a private Ray must be started with."""
    return math.ceil(config.runtime.most_workers * config.runtime.cpus_per_worker)


def wait_for_room(
    workers: int, request: Resources, *, private: bool, patience_s: float, watch: Callable[[], None]
) -> None:
    """Returns when ``workers`` workers fit, and logs now and then what it waits for.

    It waits while other jobs use the resources, and while an autoscaler may still add machines. An
    unused placement group makes the request visible to the autoscaler.

    Args:
        workers: number of workers.
        request: resources of each worker.
        private: the Ray belongs to this job, so no machine can join it.
        patience_s: how long machines may take to join a cluster without an autoscaler.
        watch: called about twice a second; may raise.

    Raises:
        ValueError: if they can never fit; says what they need and what the cluster has.
    """
    logged_at = possible_at = time.monotonic()
    group = None
    try:
        while num_fitting((machine.free for machine in machines()), request) < workers:
            lacking = num_fitting((machine.total for machine in machines()), request) < workers
            if lacking and (private or time.monotonic() - possible_at > patience_s):
                raise ValueError(
                    f"there is no room for the run: {_shortage(workers, request)}. "
                    "Set runtime.workers, runtime.cpus_per_worker or runtime.device"
                )
            if group is None:
                _log.warning("the run waits for room: %s", _shortage(workers, request))
                group = placement_group([dict(request)] * workers)
            if group.wait(0):
                return
            now = time.monotonic()
            if not lacking or _may_be_placed(group):
                possible_at = now
            if now - logged_at > LOG_EVERY_S:
                logged_at = now
                _log.warning("the run waits for room: %s", _shortage(workers, request))
            watch()
            time.sleep(0.5)
    finally:
        if group is not None:
            remove_placement_group(group)


def _shortage(workers: int, request: Resources) -> str:
    asked = ", ".join(f"{name}={amount:g}" for name, amount in request.items())
    had = [
        f"{', '.join(f'{name}={machine.total.get(name, 0):g}' for name in request)}"
        for machine in machines()
    ]
    used = sum(
        num_fitting([machine.total], request) - num_fitting([machine.free], request)
        for machine in machines()
    )
    return (
        f"{workers} workers ask for {asked} each; the machines have "
        f"{'; '.join(had) or 'none that stays'}"
        + (f" ({used} such places are taken)" if used else "")
    )


def _autoscaling_state() -> AutoscalingState:
    reply = GcsClient(address=ray.get_runtime_context().gcs_address).get_cluster_status()
    return GetClusterStatusReply.FromString(reply).autoscaling_state


def _may_be_placed(group: PlacementGroup) -> bool:
    """Whether an autoscaler may still make room for a placement group.

    False if there is no autoscaler.
    """
    autoscaling = _autoscaling_state()
    number = group.id.hex()
    return autoscaling.autoscaler_state_version > 0 and not any(
        number in each.details for each in autoscaling.infeasible_gang_resource_requests
    )


def _count(constraint: ClusterResourceConstraint) -> int:
    return sum(int(each.count) for each in constraint.resource_requests)


class AutoscalerRequest:
    """Asks an autoscaler for room for more workers than the run needs at least.

    An autoscaler refuses a whole request if it cannot meet all of it, so bisection finds the
    largest request that it can meet.

    Args:
        request: resources of each worker.
        fewest, most: number of workers.
    """

    def __init__(self, request: Resources, fewest: int, most: int) -> None:
        self._request, self._grows = dict(request), most > fewest
        self._possible, self._refused = fewest, most + 1
        if self._grows:
            self._ask(most)

    def _ask(self, workers: int) -> None:
        self._asked, self._asked_at = workers, time.monotonic()
        request_resources(bundles=[self._request] * workers)

    def update(self) -> None:
        """Call this now and then.

        It asks for less after a refusal, and for more as long as the limit is not known.
        """
        if not self._grows or self._refused - self._possible == 1:
            return
        if self._asked in map(_count, _autoscaling_state().infeasible_cluster_resource_constraints):
            self._refused = self._asked
        elif time.monotonic() - self._asked_at > ANSWER_S:
            self._possible = self._asked
        else:
            return
        self._ask((self._possible + self._refused) // 2)

    def close(self) -> None:
        """Withdraws the request."""
        if self._grows:
            request_resources(bundles=[])
