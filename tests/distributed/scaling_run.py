"""A server with 0 to 2 replicas: it keeps the one that short requests need, starts the second under
load, ends both without any, and answers again. Prints what it saw; fails at the first surprise.

    python -m tests.distributed.scaling_run FOLDER
"""

import sys
import threading
import time
from collections import Counter
from pathlib import Path

from benchmarks.scaling import MODEL, Load
from mtl_ray.distributed.proxy import free_ports
from mtl_ray.distributed.serve import APPLICATION, DEPLOYMENT, running
from mtl_ray.serving.config import AutoscaleConfig, ServeConfig
from tests.serving.bundles import make_bundle

PATIENCE_S = 200.0
STEADY_S = 30.0
"""Longer than Serve's look-back and the delay before replicas end."""


def replicas() -> int:
    """As Serve itself counts them."""
    from ray import serve

    deployment = serve.status().applications[APPLICATION].deployments[DEPLOYMENT]
    return int(deployment.replica_states.get("RUNNING", 0))


def until(count: int) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while replicas() != count:
        assert time.monotonic() < give_up, f"{replicas()} replicas, not {count}"
        time.sleep(0.5)
    print(f"{count} replicas", flush=True)


def main(folder: str) -> None:
    bundle = make_bundle(Path(folder) / MODEL, MODEL)
    (port,) = free_ports(1)
    # ends a replica sooner than Serve hears of it for the first time
    scale = AutoscaleConfig(min=0, max=2, target=1.5, up_delay_s=1, down_delay_s=4)
    config = ServeConfig(models={MODEL: bundle}, port=port, autoscale=scale)
    with running(config) as server:
        load = Load(server.url)
        threads = [threading.Thread(target=load.client, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        try:
            load.wanted = 1
            until(1)
            end = time.monotonic() + STEADY_S
            while time.monotonic() < end:
                assert replicas() == 1, "a replica that answers all the time has ended"
                time.sleep(0.5)
            print(f"{len(load.answers)} short requests", flush=True)
            load.wanted = len(threads)
            until(2)
            load.wanted = 0
            until(0)
            answered = len(load.answers)
            load.wanted = 1
            give_up = time.monotonic() + PATIENCE_S
            while len(load.answers) == answered:
                assert time.monotonic() < give_up, "no answer from zero replicas"
                time.sleep(0.2)
        finally:
            load.ended = True
            for thread in threads:
                thread.join()
        print(Counter(status for _, _, status in load.answers))
        assert {status for _, _, status in load.answers} == {200}


if __name__ == "__main__":
    main(sys.argv[1])
