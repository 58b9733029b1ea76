"""Each part of the system fails in turn: the training goes on, and ends with the same weights as
an undisturbed run.
"""

import itertools
import os
import signal
import time
from collections.abc import Callable

import pytest

from mtl_ray.inference.run_folder import checkpoint_folders, is_whole, newest_attempt
from tests.cluster import audit
from tests.cluster.conftest import World
from tests.cluster.hosts import Hosts, wait_until
from tests.cluster.network import Machine
from tests.cluster.runs import Run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
WARM = "mtl_ray.training.rank_process"


def started_driver(world: World, run: Run) -> "object":
    """A driver whose run has its first checkpoint, and then trains so slowly that every
    disturbance happens before its end.
    """
    world.hosts.set_pace(1)
    driver = run.start()
    run.wait_for_checkpoint()
    return driver


def training(hosts: Hosts, nodes: list[Machine]) -> Machine:
    """A host that trains."""
    wait_until(lambda: any(hosts.ranks(node) for node in nodes), "some host trains")
    return next(node for node in nodes if hosts.ranks(node))


def goes_on(world: World, run: Run, disturb: Callable[[Machine], object]) -> Machine:
    """Disturbs a host that trains, and waits until the next attempt has saved a checkpoint.

    Returns:
        The host.
    """
    victim, attempt = training(world.hosts, world.nodes), run.attempt()
    disturb(victim)
    run.wait_for_checkpoint(after_attempt=attempt)
    return victim


def replace(world: World, lost: Machine) -> None:
    """One more node in place of one that is lost."""
    world.nodes = [*(node for node in world.nodes if node is not lost), world.hosts.start_node()]


def test_a_run_outlives_an_exception_and_a_raylet(world: World) -> None:
    hosts, _ = world.hosts, world.have(3)
    run = world.run("outlives-processes")
    driver = started_driver(world, run)

    def fail(_: Machine) -> None:
        hosts.set_pace("a mistake of this test")
        wait_until(
            lambda: "started again" in run.said(), "the exception is heard of", hosts.log(run.name)
        )
        hosts.set_pace(1)

    goes_on(world, run, fail)
    goes_on(world, run, hosts.kill_raylet)
    hosts.set_pace(0)
    run.wait(driver)
    world.check(run)


def test_a_run_outlives_hosts_that_leave_and_die_and_are_cut_off(world: World) -> None:
    hosts, _ = world.hosts, world.have(3)
    run = world.run("outlives-hosts")
    driver = started_driver(world, run)
    hosts.set_pace(2)
    replace(world, goes_on(world, run, hosts.drain))
    replace(world, goes_on(world, run, hosts.kill))
    cut_off = goes_on(world, run, lambda victim: hosts.link(victim, up=False))
    hosts.set_pace(0)
    run.wait(driver)
    hosts.link(cut_off, up=True)
    world.check(run)


def test_a_dead_rank_costs_no_worker_of_ray_and_a_dead_worker_is_followed_by_one_that_waits(
    world: World,
) -> None:
    hosts, nodes = world.hosts, world.have(3)
    run = world.run("rank")
    driver = started_driver(world, run)
    run.wait_for_checkpoint(after_step=run.newest()[0])  # the group then knows of the one before
    workers = {worker.pid for node in nodes for worker in hosts.holders(node)}
    goes_on(world, run, lambda victim: hosts.ranks(victim)[0].kill())
    assert {worker.pid for node in nodes for worker in hosts.holders(node)} == workers
    spare: set[int] = set()

    def waiting() -> bool:
        found = [[process.pid for process in hosts.find(node, "ray::IDLE")] for node in nodes]
        spare.update(itertools.chain(*found))
        return all(found)

    wait_until(waiting, "a spare worker waits on each host", hosts.log(run.name))
    goes_on(world, run, lambda victim: hosts.holders(victim)[0].kill())
    assert {worker.pid for node in nodes for worker in hosts.holders(node)} <= spare
    hosts.set_pace(0)
    run.wait(driver)
    world.check(run)


def test_a_host_that_was_cut_off_publishes_nothing_when_it_is_back(world: World) -> None:
    """Its raylet is suspended, so nobody ends its rank, which goes on training alone: the fence
    of the run must hold.
    """
    hosts, nodes = world.hosts, world.have(2)
    run = world.run("zombie", "runtime.workers=1")
    driver = started_driver(world, run)
    zombie, old = training(hosts, nodes), run.attempt()
    hosts.find(zombie, "raylet/raylet")[0].suspend()
    hosts.link(zombie, up=False)
    run.wait_for_checkpoint(after_attempt=old)
    assert hosts.ranks(zombie), "the rank that was cut off should not know yet"
    hosts.set_pace(0)
    hosts.link(zombie, up=True)
    wait_until(
        lambda: not hosts.ranks(zombie),
        "the rank that was cut off ends itself",
        hosts.log(run.name),
    )
    run.wait(driver)
    owner = newest_attempt(run.uri)
    assert owner is not None
    assert owner.attempt > old
    late = [
        place
        for place in checkpoint_folders(run.uri)
        if place.attempt == old and place.step > owner.ends[old] and is_whole(place)
    ]
    assert late == []
    world.check(run, weights=False)


def test_a_killed_driver_is_submitted_again(world: World) -> None:
    hosts, nodes = world.hosts, world.have(2)
    run = world.run("resubmitted")
    hosts.set_pace(1)
    script = (
        f"cd {os.getcwd()} && exec python -m jobs.train {run.config} "
        f"{' '.join(map(repr, run.overrides))}"
    )
    submit = ["ray", "job", "submit", f"--address={hosts.url('')}", "--", "bash", "-c", script]
    first = hosts.run(submit, run.name)
    run.wait_for_checkpoint()
    forked = {process.pid for node in nodes for process in hosts.find(node, WARM)}
    for driver in hosts.find(hosts.head, "-m jobs.train"):
        driver.kill()
    assert first.wait(120) != 0
    attempt, second = run.attempt(), hosts.run(submit, run.name)
    run.wait_for_checkpoint(after_attempt=attempt)
    ranks = [rank for node in nodes for rank in hosts.ranks(node)]
    assert ranks
    assert {rank.ppid() for rank in ranks} <= forked, (
        "the second job uses the processes of the first that have imported torch"
    )
    hosts.set_pace(0)
    run.wait(second)
    world.check(run)


def test_sigterm_leaves_a_checkpoint(world: World) -> None:
    world.have(2)
    run = world.run("stopped")
    driver = started_driver(world, run)
    before = run.newest()[0]
    for process in world.hosts.find(world.hosts.head, "-m jobs.train"):
        if process.name().startswith("python"):
            process.send_signal(signal.SIGTERM)
    run.wait(driver, 143)
    assert run.newest()[0] > before
    world.hosts.set_pace(0)
    run.wait(run.start())
    world.check(run)


def test_the_same_order_with_two_then_three_then_one_worker(world: World) -> None:
    hosts, nodes = world.hosts, world.have(2)
    run = world.run("elastic", "runtime.workers={min: 1, max: 3}", "runtime.grow_every_s=1")
    driver = started_driver(world, run)
    hosts.set_pace(3)  # on a busy machine a node takes a minute to start
    third = hosts.start_node()
    wait_until(lambda: workers(run) == 3, "there are three workers", hosts.log(run.name))
    run.wait_for_checkpoint(after_attempt=run.attempt() - 1)
    for node in nodes:
        hosts.drain(node)
    wait_until(lambda: workers(run) == 1, "there is one worker", hosts.log(run.name))
    hosts.set_pace(0)
    run.wait(driver)
    assert third in hosts.network.machines.values()
    found = world.check(run, weights=False)
    assert found.worlds[0] == 2
    assert 3 in found.worlds
    assert found.worlds[-1] == 1


def workers(run: Run) -> int:
    """Of the newest attempt."""
    return audit.attempts(run.uri)[-1].world_size


def test_the_s3_server_dies_and_comes_back(world: World) -> None:
    world.have(2)
    run = world.run("no-bucket")
    driver = started_driver(world, run)
    world.bucket.kill()
    try:
        wait_until(
            lambda: "could not be written" in run.said(),
            "the loss is noticed",
            world.hosts.log(run.name),
        )
        world.hosts.set_pace(0)
    finally:
        world.bucket.start()
    run.wait(driver)
    assert run.attempt() == 1
    world.check(run)


def test_an_s3_server_with_bad_days(world: World) -> None:
    """A third of all requests get a server error, a broken connection, a slow answer or a
    truncated body.
    """
    world.have(2)
    run = world.run("bad-days", "runtime.checkpoint_every_s=0.1")
    world.hosts.set_pace(0.5)
    world.storm.met.clear()
    world.storm.share = 0.33
    try:
        run.wait(run.start(), patience_s=480)
    finally:
        world.storm.share = 0.0
    assert all(world.storm.met[fault] for fault in ("500", "503", "reset", "slow", "truncated"))
    world.check(run)


def test_a_full_disk(world: World) -> None:
    world.have(2)
    small = world.hosts.network.folder / "small"
    run = Run(
        world.hosts,
        world.base,
        "full-disk",
        "schedule.steps=60",
        "runtime.workers=2",
        f"runtime.storage={small}",
    )
    run.uri = str(small / "full-disk")
    driver = started_driver(world, run)
    filler = small / "filler"
    fill(filler)
    wait_until(
        lambda: "could not be written" in run.said(),
        "the full disk is noticed",
        world.hosts.log(run.name),
    )
    filler.unlink()
    world.hosts.set_pace(0)
    run.wait(driver)
    assert run.attempt() == 1
    world.check(run)


def fill(path: "os.PathLike[str]") -> None:
    """Until nothing more fits."""
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def test_a_run_that_can_never_be_placed_says_so(world: World) -> None:
    world.have(2)
    run = world.run("never", "runtime.workers=9")
    began = time.monotonic()
    run.wait(run.start(), 2)
    print(f"said after {time.monotonic() - began:.0f} s")
    assert "9 workers ask for CPU=1 each; the machines have" in run.said()
