"""Conversion and evaluation run on all hosts and survive the loss of one.

Nobody gets in without the token.
"""

import json
import urllib.error
import urllib.request

import pytest

from mtl_ray import storage
from mtl_ray.shards.split import open_split
from tests.cluster.conftest import World
from tests.cluster.hosts import Hosts, wait_until
from tests.cluster.network import Machine

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def working(hosts: Hosts, nodes: list[Machine], count: int, name: str) -> list[Machine]:
    """Waits until tasks of a driver run on this number of hosts, and returns the hosts."""
    found: list[Machine] = []

    def look() -> bool:
        found[:] = [
            node
            for node in nodes
            if hosts.find(node, "ray::_call") or hosts.find(node, "ray::work")
        ]
        return len(found) >= count

    wait_until(look, f"{count} hosts work", hosts.log(name))
    return found


def test_a_conversion_outlives_a_host(world: World) -> None:
    hosts, nodes = world.hosts, world.have(2)
    uri = storage.join(world.base, "digits")
    command = [
        "python",
        "-m",
        "jobs.convert",
        "digits",
        "--split",
        "train",
        "--num",
        "6000",
        "--size",
        "64",
        "--to",
    ]
    driver = hosts.run([*command, uri], "convert")
    hosts.kill(working(hosts, nodes, 2, "convert")[0])
    assert driver.wait(240) == 0, hosts.log("convert").read_text()
    split = open_split(uri)
    found = [sample for block in range(len(split.block_rows)) for sample in split.read_block(block)]
    assert len({sample.key for sample in found}) == len(found) == 6000
    again = storage.join(world.base, "digits-again")
    world.have(1)
    assert hosts.run([*command, again], "convert").wait(240) == 0, hosts.log("convert").read_text()
    assert list(open_split(again).manifest.shard_sha256) == list(split.manifest.shard_sha256)


def test_an_evaluation_outlives_a_host(world: World) -> None:
    reference = world.reference()
    hosts, nodes = world.hosts, world.have(2)
    command = [
        "python",
        "-m",
        "jobs.evaluate",
        reference.uri,
        "--data",
        storage.join(world.base, "train"),
    ]
    reports = []
    for workers, out in (("12", "spread"), ("1", "alone")):
        uri = storage.join(world.base, "evaluated", out)
        driver = hosts.run([*command, "--workers", workers, "--out", uri], "evaluate")
        if workers != "1":
            hosts.kill(working(hosts, nodes, 1, "evaluate")[0])
        assert driver.wait(240) == 0, hosts.log("evaluate").read_text()
        reports.append(json.loads(storage.read(storage.join(uri, "report.json"))))
    spread, alone = (
        {name: value for name, value in report.items() if "/" in name} for report in reports
    )
    assert spread == alone


PATHS = (
    "/api/jobs/",
    "/api/v0/nodes",
    "/api/v0/logs",
    "/api/v0/actors",
    "/nodes?view=summary",
    "/api/version",
)


@pytest.mark.parametrize("path", PATHS)
def test_nobody_gets_in_without_the_token(world: World, path: str) -> None:
    assert status(world.hosts.url(path), {}) == 401
    assert status(world.hosts.url(path), {"Authorization": "Bearer wrong"}) == 403
    token = {"Authorization": f"Bearer {world.hosts.token}"}
    assert status(world.hosts.url(path), token) not in (401, 403)


def test_no_job_without_the_token(world: World) -> None:
    job = {"entrypoint": "true"}
    assert (
        status(
            world.hosts.url("/api/jobs/"),
            {"Content-Type": "application/json"},
            json.dumps(job).encode(),
        )
        == 401
    )
    refused = ["ray", "job", "submit", f"--address={world.hosts.url('')}", "--", "true"]
    assert world.hosts.run(refused, "refused", {"RAY_AUTH_MODE": "disabled"}).wait(120) != 0
    assert "authentication is enabled" in world.hosts.log("refused").read_text()


def status(url: str, headers: dict[str, str], data: bytes | None = None) -> int:
    """Of the answer."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data, headers), timeout=60
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
