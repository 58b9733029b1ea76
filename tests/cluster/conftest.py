"""One cluster of hosts for all tests of this folder.

Each test may leave it broken; the next one repairs it first.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.cluster import audit
from tests.cluster.audit import Trained
from tests.cluster.bucket import Bucket
from tests.cluster.hosts import Hosts
from tests.cluster.network import Machine, why_not
from tests.cluster.runs import Run, keys, write_data
from tests.cluster.storm import Storm

STEPS = 60


@pytest.fixture(scope="session", autouse=True)
def _allowed() -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)


@dataclass
class World:
    """Hosts with a head, a bucket with data behind a proxy, and one undisturbed run.

    Attributes:
        hosts, bucket, storm: see there.
        base: what ``Run`` takes.
        nodes: those that are sound.
    """

    hosts: Hosts
    bucket: Bucket
    storm: Storm
    base: str
    nodes: list[Machine] = field(default_factory=list)
    _reference: Run | None = None

    def have(self, count: int) -> list[Machine]:
        """Ensures this number of healthy nodes, and no others."""
        self.hosts.set_pace(0)
        alive = self.hosts.alive()
        staying = [
            node for node in self.nodes if node.address in alive and node not in self.hosts.leaving
        ]
        sound = [node for node in staying if not self.hosts.ranks(node)][:count]
        for machine in list(self.hosts.network.machines.values()):
            if machine not in sound and machine.name != "head":
                self.hosts.kill(machine)
        new = [self.hosts.start_node(wait=False) for _ in range(count - len(sound))]
        for node in new:
            self.hosts.wait_for(node)
        self.nodes = sound + new
        return list(self.nodes)

    def run(self, name: str, *overrides: str) -> Run:
        """Another run with as many steps as the reference, with two workers unless overridden."""
        return Run(
            self.hosts, self.base, name, f"schedule.steps={STEPS}", "runtime.workers=2", *overrides
        )

    def check(self, run: Run, *, weights: bool = True) -> Trained:
        """Asserts that a run has ended like the reference: the same samples in the same order
        and (``weights``) identical weights.
        """
        reference = self.reference()
        found, expected = (audit.trained(one.uri, one.ledger, STEPS) for one in (run, reference))
        assert audit.lost_and_repeated(found, expected) == (0, 0)
        assert found.steps == expected.steps
        assert audit.corrupt(run.uri) == []
        if weights:
            assert audit.same_weights(run.uri, reference.uri)
        return found

    def reference(self) -> Run:
        """The undisturbed run of ``STEPS`` steps by two workers."""
        if self._reference is None:
            self.have(2)
            self._reference = self.run("undisturbed")
            self._reference.wait(self._reference.start())
            assert (
                audit.uneven(
                    audit.trained(self._reference.uri, self._reference.ledger, STEPS), keys()
                )
                == []
            )
        return self._reference


@pytest.fixture(scope="session")
def world(_allowed: None) -> Iterator[World]:
    with (
        Hosts() as hosts,
        Bucket(hosts.network) as bucket,
        Storm(hosts.network.address, bucket.endpoint) as storm,
    ):
        hosts.add_environment(bucket.environment | {"AWS_ENDPOINT_URL": storm.endpoint})
        made = World(hosts, bucket, storm, write_data(bucket))
        hosts.start_head()
        yield made
