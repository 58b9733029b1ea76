"""How many replicas a server needs, by the requests that they hold on average over time.

Serve 2.60 samples the number of requests in work. It misses short ones, which its replica answers
between two samples, and all that come over gRPC; so it once removed the only replica of a server
that answered 400 requests a second.
"""

from typing import Any

HELD = "mtl_ray_held"
"""The metric that every replica reports to Serve: see ``Held.mean``."""


def by_held_requests(context: Any) -> tuple[float, dict[str, Any]]:
    """The number of replicas, before Serve applies its limits and delays.

    Args:
        context: an ``AutoscalingContext`` of Serve.
    """
    if context.current_num_replicas == 0:
        return context.target_num_replicas, {}
    reported = (context.aggregated_metrics or {}).get(HELD, {})
    # Serve also counts the requests that wait where no replica has taken them
    held = max(sum(reported.values()), context.total_num_requests)
    needed = held / context.config.get_target_ongoing_requests()
    # a replica reports some seconds after its start: until then nothing says that it is idle
    unknown = len(reported) < context.current_num_replicas
    return max(needed, context.current_num_replicas) if unknown else needed, {}
