"""What the autoscaler of a cluster says of the machines that a run wishes for.

Ray's own autoscalers tell nobody how far they may grow (``get_cluster_config`` is empty but for one vendor's). They tell which of the
wishes that are open can never be met; so a run wishes, and looks whether it is refused. A cluster of fixed machines has an autoscaler
too, which refuses whatever its machines cannot hold.
"""

import time
from collections.abc import Mapping

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.autoscaler.sdk import request_resources
from ray.core.generated.autoscaler_pb2 import AutoscalingState, ClusterResourceConstraint, GetClusterStatusReply
from ray.util.placement_group import PlacementGroup

Resources = Mapping[str, float]
ANSWER_S = 20.0
"""What an autoscaler has not refused by then it can give."""


def _state() -> AutoscalingState:
    reply = GcsClient(address=ray.get_runtime_context().gcs_address).get_cluster_status()
    return GetClusterStatusReply.FromString(reply).autoscaling_state


def hopeful(wish: PlacementGroup) -> bool:
    """Whether an autoscaler may still make room for a placement group; False where there is none."""
    state = _state()
    number = wish.id.hex()
    return state.autoscaler_state_version > 0 and not any(number in each.details for each in state.infeasible_gang_resource_requests)


def _count(constraint: ClusterResourceConstraint) -> int:
    return sum(int(each.count) for each in constraint.resource_requests)


class Demand:
    """Asks an autoscaler for room for more workers than a run needs at least.

    An autoscaler refuses as a whole what it cannot give as a whole, so that the most that it can give is found by halving.

    Args:
        request: of each worker.
        fewest, most: workers.
    """

    def __init__(self, request: Resources, fewest: int, most: int) -> None:
        self._request, self._grows = dict(request), most > fewest
        self._possible, self._refused = fewest, most + 1
        if self._grows:
            self._ask(most)

    def _ask(self, workers: int) -> None:
        self._asked, self._asked_at = workers, time.monotonic()
        request_resources(bundles=[self._request] * workers)

    def look(self) -> None:
        """Now and then: asks for less if there cannot be so much, and for more if there may be."""
        if not self._grows or self._refused - self._possible == 1:
            return
        if self._asked in map(_count, _state().infeasible_cluster_resource_constraints):
            self._refused = self._asked
        elif time.monotonic() - self._asked_at > ANSWER_S:
            self._possible = self._asked
        else:
            return
        self._ask((self._possible + self._refused) // 2)

    def close(self) -> None:
        """Asks for nothing any more."""
        if self._grows:
            request_resources(bundles=[])
