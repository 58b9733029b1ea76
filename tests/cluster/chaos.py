"""Kills parts of the system under a run again and again, and counts the cost.

    python -m tests.cluster.chaos --kills 10 --seed 1 --every 60 --world fixed

A run trains on hosts of namespaces with its data and its checkpoints in an S3 server. About every
so many seconds one of these is done to it, as the seed says: a rank or its Ray worker gets SIGKILL;
the raylet of a host gets SIGKILL; the power or the network cable of a host fails (and the cable is
put in again later); a host is drained as before a preemption; the driver gets SIGKILL and the job
is given again. A lost host is replaced once the run has saved again. Three of four kills wait for
that too. After the last kill, and once the run has recovered, it is asked to stop with a
checkpoint; a second run makes the same number of steps undisturbed, and both are compared:

* corrupt checkpoints: such as could be found but were not whole, at the end or by an attempt that
  looked for where to go on;
* samples lost, repeated: seen less often, or more often, than by the undisturbed run, along the
  line of steps that led to the weights;
* order: whether every step had the same samples in the same order;
* weights: whether they and the optimiser's state have equal bits (with a fixed world; with a
  changing one they cannot);
* saved again: how long after a kill the next checkpoint lay in the bucket;
* goodput = useful step time / wall time, from the first checkpoint of the run to its end: useful is
  the number of steps on the line times the median time of a step in this run. What a kill costs
  (the work done again, and the time until a step is made again) follows, and with it the goodput at
  one kill a minute: 1 - cost / 60 s.

With ``--processors own`` ranks at work go before all else on this machine, as on hosts that do not
share one; ``shared`` shows how much their steps suffer from a host that starts beside them, on the
same few processors.

SIGTERM ends the kills early; what was done until then is compared. The exit status is 0 if nothing
was corrupt, lost or repeated, the order is the same, and with a fixed world the weights are equal;
else 1.
"""

import argparse
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mtl_ray.training.scalars import read_scalars
from tests.cluster import audit
from tests.cluster.bucket import Bucket
from tests.cluster.hosts import Hosts, kill_tree, tell, wait_until
from tests.cluster.network import Machine, why_not
from tests.cluster.runs import Run, keys, write_data

KINDS = ("rank", "holder", "raylet", "power", "cable", "drain", "driver")
REST_S = 0.1
NODES = 3
PATIENCE_S = 600.0
RECOVERED = 0.75
"""The share of kills that wait until the run has saved a checkpoint since the last kill; the others
may hit it while it recovers."""
_ENDLESS = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The cost of the kills; see above."""

    kills: Counter[str]
    steps: int
    attempts: int
    worlds: Counter[int]
    corrupt: list[str]
    lost: int
    repeated: int
    same_order: bool
    same_weights: bool | None
    wall_s: float
    useful_s: float
    recoveries: dict[str, list[float]]

    def passed(self) -> bool:
        """Whether everything went right."""
        clean = not self.corrupt and not self.lost and not self.repeated
        return clean and self.same_order and self.same_weights is not False

    def text(self) -> str:
        """A report to read."""
        count = self.kills.total()
        cost_s = (self.wall_s - self.useful_s) / max(1, count)
        weights = {True: "equal", False: "NOT EQUAL", None: "not comparable (changing world)"}[
            self.same_weights
        ]
        again = ", ".join(
            f"{statistics.median(seconds):.0f} s after {kind}"
            for kind, seconds in sorted(self.recoveries.items())
        )
        worlds = ", ".join(f"{steps} by {world}" for world, steps in sorted(self.worlds.items()))
        return "\n".join(
            (
                f"kills                {count} "
                f"({', '.join(f'{number} {kind}' for kind, number in sorted(self.kills.items()))})",
                f"attempts             {self.attempts}",
                f"steps on the line    {self.steps} (workers: {worlds})",
                f"corrupt checkpoints  {len(self.corrupt)}",
                *(f"    {fault}" for fault in self.corrupt),
                f"samples lost         {self.lost}",
                f"samples repeated     {self.repeated}",
                f"order of samples     {'same' if self.same_order else 'NOT THE SAME'}",
                f"final weights        {weights}",
                f"goodput              {self.useful_s / self.wall_s:.1%} ({self.useful_s:.0f} s "
                f"useful of {self.wall_s:.0f} s)",
                f"saved again          {again} (median)",
                f"a kill costs         {cost_s:.1f} s; at one kill a minute goodput is "
                f"{max(0.0, 1 - cost_s / 60):.1%}",
            )
        )


@dataclass(frozen=True)
class _Kill:
    """The last checkpoint, as long as no attempt after ``attempt`` has saved one."""

    kind: str
    attempt: int
    at: float


class Chaos:
    """One run, and the kills.

    Args:
        hosts, base: the cluster, with its head, and the URI of the data.
        name: of the run.
        seed: of what is done when.
        fixed: always two workers, else one to three.
    """

    def __init__(self, hosts: Hosts, base: str, name: str, seed: int, *, fixed: bool) -> None:
        self.hosts, self.base, self.fixed = hosts, base, fixed
        self.random = random.Random(seed)
        self.workers = (
            ["runtime.workers=2"]
            if fixed
            else ["runtime.workers={min: 1, max: 3}", "runtime.grow_every_s=10"]
        )
        self.run = Run(
            hosts,
            base,
            name,
            f"schedule.steps={_ENDLESS}",
            "runtime.log_every_steps=10",
            *self.workers,
        )
        self.nodes = [hosts.start_node(wait=False) for _ in range(NODES)]
        for node in self.nodes:
            hosts.wait_for(node)
        self.broken: list[Machine] = []
        self.killed: _Kill | None = None
        self.recoveries: dict[str, list[float]] = {}
        self.kills: Counter[str] = Counter()

    def go(self, kills: int, every_s: float) -> Outcome:
        """Runs, kills, compares."""
        self.hosts.set_pace(REST_S)
        self.driver = self.run.start()
        self.run.wait_for_checkpoint()
        since, before = time.time(), self.run.newest()[0]
        kinds = [
            kind
            for _ in range(kills // len(KINDS) + 1)
            for kind in self.random.sample(KINDS, len(KINDS))
        ]
        told: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
        for kind in kinds[:kills]:
            if told:
                break
            self._rest(every_s, patient=self.random.random() < RECOVERED)
            self._kill(kind)
        self._rest(every_s, patient=True)
        wall_s = time.time() - since
        tell(self.driver, signal.SIGTERM)
        self.run.wait(self.driver, 128 + signal.SIGTERM)
        return self._compare(wall_s, before)

    def _rest(self, every_s: float, *, patient: bool) -> None:
        """Waits until the next kill.

        A patient kill waits until the run has saved a checkpoint since the last one.
        """
        end = time.monotonic() + self.random.uniform(0.5, 1.5) * every_s
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < end or (patient and self.killed is not None):
            self._look()
            if time.monotonic() > give_up:
                raise TimeoutError(f"the run does not recover\n{self.run.said()[-5000:]}")
            time.sleep(0.5)
        self._replace()

    def _look(self) -> None:
        """Whether the run has saved a checkpoint since the last kill."""
        if self.killed is not None and self.run.newest()[1] > self.killed.attempt:
            seconds = time.monotonic() - self.killed.at
            self.recoveries.setdefault(self.killed.kind, []).append(seconds)
            self.killed = None
            print(f"    saved again {seconds:.1f} s after it", flush=True)
            self._replace()

    def _replace(self) -> None:
        self.nodes += [self.hosts.start_node(wait=False) for _ in range(NODES - len(self.nodes))]

    def _step_s(self) -> float:
        """The typical duration of a step of the run."""
        rows = [
            row for row in read_scalars(f"{self.run.uri}/scalars.jsonl") if row["mode"] == "train"
        ]
        return float(statistics.median(row["time"] for row in rows))

    def _kill(self, kind: str) -> None:
        if self.driver.poll() is not None:
            raise RuntimeError(
                "the driver ended by itself with "
                f"{self.driver.returncode}\n{self.run.said()[-5000:]}"
            )
        at, (step, attempt) = time.monotonic(), self.run.newest()
        print(
            f"kill {self.kills.total() + 1}: {kind}; newest checkpoint: step {step} of attempt "
            f"{attempt}",
            flush=True,
        )
        for machine in self.broken:
            self.hosts.kill(machine)
        self.broken.clear()
        if kind == "driver":
            kill_tree(self.driver)
            self.driver = self.run.start()
        elif kind in ("rank", "holder"):
            victims = [process for node in self._busy() for process in self._processes(node, kind)]
            self.random.choice(victims).kill()
        else:
            node = self.random.choice(self._busy())
            self.nodes.remove(node)
            self._break(node, kind)
        self.kills[kind] += 1
        self.killed = _Kill(kind, attempt, at)

    def _break(self, node: Machine, kind: str) -> None:
        if kind == "power":
            self.hosts.kill(node)
            return
        if kind == "raylet":
            self.hosts.kill_raylet(node)
        elif kind == "drain":
            self.hosts.drain(node)
            wait_until(
                lambda: not self.hosts.ranks(node),
                f"{node.name} is left",
                self.hosts.log(self.run.name),
            )
        else:
            self.hosts.link(node, up=False)
            wait_until(lambda: node.address not in self.hosts.alive(), f"{node.name} is given up")
            self.hosts.link(node, up=True)
        self.broken.append(node)

    def _processes(self, node: Machine, kind: str) -> list:  # type: ignore[type-arg]
        return self.hosts.ranks(node) if kind == "rank" else self.hosts.holders(node)

    def _busy(self) -> list[Machine]:
        """Waits until hosts train, and returns them."""
        found: list[Machine] = []

        def look() -> bool:
            found[:] = [
                node for node in self.nodes if self.hosts.ranks(node) and self.hosts.holders(node)
            ]
            return bool(found)

        wait_until(look, "some host trains", self.hosts.log(self.run.name))
        return found

    def _compare(self, wall_s: float, before: int) -> Outcome:
        """Steps per second; some steps were made before the clock started."""
        steps = self.run.newest()[0]
        print(f"the run stopped after {steps} steps; the same undisturbed:", flush=True)
        self.hosts.set_pace(0)
        reference = Run(
            self.hosts,
            self.base,
            f"{self.run.name}-undisturbed",
            f"schedule.steps={steps}",
            "runtime.workers=2",
        )
        reference.wait(reference.start(), patience_s=1200)
        seen = audit.trained(self.run.uri, self.run.ledger, steps)
        expected = audit.trained(reference.uri, reference.ledger, steps)
        assert not audit.uneven(expected, keys()), (
            "the undisturbed run itself does not see every sample equally often"
        )
        lost, repeated = audit.lost_and_repeated(seen, expected)
        passed_over = [line for line in self.run.said().splitlines() if "is passed over" in line]
        return Outcome(
            kills=self.kills,
            steps=steps,
            attempts=self.run.attempt(),
            worlds=Counter(seen.worlds),
            corrupt=audit.corrupt(self.run.uri) + passed_over,
            lost=lost,
            repeated=repeated,
            same_order=seen.steps == expected.steps,
            same_weights=audit.same_weights(self.run.uri, reference.uri) if self.fixed else None,
            wall_s=wall_s,
            useful_s=(steps - before) * self._step_s(),
            recoveries=self.recoveries,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the cost of the kills."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--every", type=float, default=60.0, metavar="SECONDS", help="between kills, on average"
    )
    parser.add_argument("--world", choices=("fixed", "changing"), default="fixed")
    parser.add_argument("--processors", choices=("own", "shared"), default="own")
    args = parser.parse_args(argv)
    reason = why_not()
    if reason:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    own = args.processors == "own" and _may_go_first()
    print(f"processors: {'own' if own else 'shared'}", flush=True)
    with Hosts() as hosts, Bucket(hosts.network) as bucket:
        hosts.add_environment(bucket.environment)
        base = write_data(bucket)
        if own:
            hosts.add_environment({"TESTS_PRECEDENCE": "1"})
        hosts.start_head()
        outcome = Chaos(hosts, base, "chaos", args.seed, fixed=args.world == "fixed").go(
            args.kills, args.every
        )
    print(outcome.text())
    return 0 if outcome.passed() else 1


def _may_go_first() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


if __name__ == "__main__":
    sys.exit(main())
