"""A cluster with an autoscaler grows for work that waits, and shrinks when it is done."""

import signal
from collections.abc import Iterator

import pytest
import yaml

from mtl_ray import storage
from tests.cluster import audit
from tests.cluster.autoscaler import write_cluster
from tests.cluster.conftest import STEPS, World
from tests.cluster.hosts import GCS_PORT, Hosts, wait_until
from tests.cluster.runs import Run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
NODES = 2


@pytest.fixture(scope="module")
def growing(world: World) -> Iterator[Hosts]:
    """A separate head whose autoscaler starts nodes; it uses the bucket of the other tests."""
    with Hosts() as hosts:
        hosts.add_environment(world.bucket.environment)
        file = hosts.shared / "cluster.yaml"
        environment = write_cluster(
            file, f"{hosts.network.prefix}.10:{GCS_PORT}", nodes=NODES, idle_s=6
        )
        hosts.start_head(f"--autoscaling-config={file}", environment=environment)
        yield hosts
        for process in hosts.find(hosts.head, "ray start"):
            process.send_signal(signal.SIGTERM)


def nodes(hosts: Hosts) -> int:
    """Of the autoscaler; they all have the head's address."""
    found = hosts.api("/api/v0/nodes?limit=1000&detail=1")["data"]["result"]["result"]
    return sum(node["state"] == "ALIVE" and not node["is_head_node"] for node in found)


def test_up_for_a_conversion_and_down_after_it(growing: Hosts, world: World) -> None:
    assert nodes(growing) == 0
    uri = storage.join(world.base, "grown")
    command = [
        "python",
        "-m",
        "jobs.convert",
        "digits",
        "--split",
        "train",
        "--num",
        "4000",
        "--size",
        "64",
        "--to",
        uri,
    ]
    driver = growing.run(command, "convert")
    wait_until(lambda: nodes(growing) == NODES, "the cluster has grown", growing.log("convert"))
    assert driver.wait(240) == 0, growing.log("convert").read_text()
    wait_until(lambda: nodes(growing) == 0, "the cluster has shrunk", growing.log("head"))


def test_up_for_a_search_and_down_after_it(growing: Hosts, world: World) -> None:
    run = Run(growing, world.base, "search")
    content = yaml.safe_load(run.config.read_text())
    content["schedule"]["steps"] = 8
    content["runtime"]["ledger"] = None
    space = {"schedule.optimizer.lr": {"type": "loguniform", "low": 1e-3, "high": 1e-1}}
    content["tune"] = {
        "space": space,
        "metric": "labels/top1",
        "sampler": "random",
        "trials": 2,
        "concurrent": NODES,
    }
    run.config.write_text(yaml.safe_dump(content))
    driver = growing.run(["python", "-m", "jobs.tune", str(run.config)], run.name)
    wait_until(lambda: nodes(growing) == NODES, "the cluster has grown", growing.log(run.name))
    run.wait(driver)
    trials = storage.names(storage.join(run.uri, "trials"))
    assert len(trials) == 2
    wait_until(lambda: nodes(growing) == 0, "the cluster has shrunk", growing.log("head"))


def test_an_elastic_training_gets_what_there_may_be_and_no_more_is_asked_for(
    growing: Hosts, world: World
) -> None:
    run = Run(
        growing,
        world.base,
        "grown",
        f"schedule.steps={STEPS}",
        "runtime.workers={min: 1, max: 8}",
        "runtime.grow_every_s=1",
    )
    growing.set_pace(5)  # else a busy machine ends it before the hosts have come
    driver = run.start()
    wait_until(
        lambda: (
            audit.attempts(run.uri)[-1:] != [] and audit.attempts(run.uri)[-1].world_size == NODES
        ),
        "it has grown",
    )
    growing.set_pace(0)
    run.wait(driver)
    world.check(run, weights=False)
    wait_until(lambda: nodes(growing) == 0, "the cluster has shrunk", growing.log("head"))


def test_more_than_it_may_grow_to_is_refused(growing: Hosts, world: World) -> None:
    run = Run(growing, world.base, "too-large", f"schedule.steps={STEPS}", "runtime.workers=3")
    run.wait(run.start(), 2)
    assert "3 workers ask for CPU=1 each" in run.said()
