"""A run whose cluster grows and shrinks, in its own process.

It prints the world size of each attempt. ``python -m tests.distributed.elastic_run FOLDER``: FOLDER
has the splits ``train`` and ``val``. The cluster has one machine with a CPU, gets a second, which
is then taken away with notice; the first one dies without notice when a third is there.
"""

import os
import sys
import threading
import time
from pathlib import Path

import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

from mtl_ray.inference.run_folder import newest_attempt
from tests.training.tiny import config_of

STORE_BYTES = 80_000_000


def main(folder: Path) -> None:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        },
    )
    first = cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    os.environ["RAY_ADDRESS"] = cluster.address
    ray.init(address=cluster.address, logging_level="ERROR")
    options = (
        "schedule.steps=100000",
        "runtime.workers={min: 1, max: 2}",
        "runtime.grow_every_s=1",
        "runtime.max_failures=20",
    )
    config = config_of(
        folder,
        folder / "runs",
        *options,
        "runtime.checkpoint_every_steps=20",
        "schedule.evaluate_every_steps=100000",
    )
    end = threading.Event()
    seen: list[int] = []
    thread = threading.Thread(target=_train, args=(config, end))
    thread.start()
    _wait_for(folder, seen, 1)
    second = cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    _wait_for(folder, seen, 2)
    _drain(cluster.address, second.node_id)
    _wait_for(folder, seen, 1)
    cluster.remove_node(second, allow_graceful=False)
    cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    _wait_for(folder, seen, 2)
    cluster.remove_node(first, allow_graceful=False)
    _wait_for(folder, seen, 1)
    end.set()
    thread.join()
    print("worlds", *seen)
    ray.shutdown()
    cluster.shutdown()


def _train(config: object, end: threading.Event) -> None:
    from mtl_ray.distributed import train as module

    original = module._Driver._watch

    def watch(driver: "module._Driver") -> None:
        if end.is_set():
            driver._run_state.request_stop.remote("the end", end=True)
        original(driver)

    module._Driver._watch = watch  # type: ignore[method-assign]
    summary = module.train(config)  # type: ignore[arg-type]
    print("stopped", not summary["finished"], flush=True)


def _wait_for(folder: Path, seen: list[int], world_size: int) -> None:
    """Waits until an attempt with this number of workers has started."""
    while True:
        attempt = newest_attempt(str(folder / "runs" / "run"))
        if attempt is not None and attempt.world_size == world_size:
            break
        time.sleep(0.2)
    seen.append(world_size)
    print(f"attempt {attempt.attempt} has {world_size} from step {attempt.from_step}", flush=True)
    time.sleep(2)


def _drain(address: str, node_id: str) -> None:
    in_a_minute = int((time.time() + 60) * 1000)
    accepted, why = GcsClient(address=address).drain_node(
        node_id, DRAIN_NODE_REASON_PREEMPTION, "taken away", in_a_minute
    )
    assert accepted, why


if __name__ == "__main__":
    main(Path(sys.argv[1]))
