"""Tasks on a machine with GPUs and one without, which is then lost.

Prints where they ran. ``python -m tests.distributed.placing_run``.
"""

import ray
from ray.cluster_utils import Cluster

from mtl_ray.distributed.executor import fan_out

STORE_BYTES = 80_000_000
TASKS = 1000


def where(_: int) -> str:
    return str(ray.get_runtime_context().get_node_id())


def main() -> None:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        },
    )
    cluster.add_node(num_cpus=2, num_gpus=2, object_store_memory=STORE_BYTES)
    plain = cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    ray.init(address=cluster.address, logging_level="ERROR")
    places = list(fan_out(where, range(TASKS), description="before"))
    print(len(places), "plain" if set(places) == {plain.node_id} else "elsewhere")
    results = fan_out(where, range(TASKS), description="after")
    first = next(results)
    cluster.remove_node(plain, allow_graceful=False)
    print("lost")
    places = [first, *results]
    print(len(places), "either" if len(set(places)) == 2 else "one")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
