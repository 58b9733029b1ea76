"""A Ray cluster of several hosts on one machine: a head and nodes with their own addresses,
which can fail in every way.
"""

import json
import os
import secrets
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from mtl_ray import storage
from tests.cluster.network import Machine, Network

PATIENCE_S = 300.0
"""Longest wait for something that must happen, even on a slow machine."""
_PACE = Path(__file__).parent / "pace"
GCS_PORT, DASHBOARD_PORT = 6379, 8265
_SETTINGS = {
    # A host that does not answer counts as dead after 4 x 2 s instead of 5 x 13 s.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1500",
    "RAY_health_check_failure_threshold": "4",
    "RAY_DEDUP_LOGS": "0",
    "RAY_worker_niceness": "0",
}


class Hosts:
    """The head ``head`` and nodes ``node1``, ....

    All processes end with the block, or with this process.

    Args:
        environment: of all Ray processes and drivers, besides a token.

    Attributes:
        leaving: nodes that were drained; they are alive until their time is over, and take no more
            work.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.network = Network()
        self.token = secrets.token_hex(32)
        self._environment = _SETTINGS | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            **(environment or {}),
        }
        self._environment |= {"PYTHONPATH": str(_PACE), "TESTS_PACE": str(self.shared / "pace")}
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._options: dict[str, tuple[str, ...]] = {}
        self._count = 0
        self.leaving: set[Machine] = set()

    @property
    def head(self) -> Machine:
        """The host of the head and of the drivers."""
        return self.network.machines["head"]

    @property
    def address(self) -> str:
        """Of the cluster."""
        return f"{self.head.address}:{GCS_PORT}"

    @property
    def shared(self) -> Path:
        """A folder that all hosts share."""
        return self.network.folder / "shared"

    def __enter__(self) -> "Hosts":
        self.network.__enter__()
        self.set_pace(0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.network.__exit__(kind, error, trace)

    def set_pace(self, seconds: float | str) -> None:
        """Sets how long ranks sleep before each step from now on.

        A string is an error that they raise instead.
        """
        storage.write(str(self.shared / "pace"), f"{seconds}".encode())

    def add_environment(self, environment: Mapping[str, str]) -> None:
        """Sets environment variables for processes that are started from now on."""
        self._environment.update(environment)

    def start_head(self, *options: str, environment: Mapping[str, str] | None = None) -> Machine:
        """A head without CPUs, with a dashboard that requires the token."""
        machine = self.network.add("head")
        self._start(
            machine,
            *(
                "--head",
                f"--port={GCS_PORT}",
                "--num-cpus=0",
                f"--dashboard-host={machine.address}",
                f"--dashboard-port={DASHBOARD_PORT}",
            ),
            *options,
            environment=environment or {},
        )
        wait_until(self._answers, "the head answers", self.log("head"))
        return machine

    def start_node(self, cpus: float = 1, *options: str, wait: bool = True) -> Machine:
        """One more node."""
        self._count += 1
        machine = self.network.add(f"node{self._count}")
        self._options[machine.name] = (f"--address={self.address}", f"--num-cpus={cpus}", *options)
        self._start(machine, *self._options[machine.name], environment={})
        if wait:
            self.wait_for(machine)
        return machine

    def wait_for(self, machine: Machine) -> None:
        """Waits until the cluster knows a node.

        On a very busy machine ``ray start`` may fail after half a minute; it is then repeated.
        """

        def there() -> bool:
            if self._started[machine.name].poll() is not None:
                for process in machine.processes():
                    process.kill()
                self._start(machine, *self._options[machine.name], environment={})
            return machine.address in self.alive()

        wait_until(there, f"{machine.name} joins", self.log(machine.name))

    def _start(self, machine: Machine, *options: str, environment: Mapping[str, str]) -> None:
        command = (
            "ray",
            "start",
            "--block",
            f"--node-ip-address={machine.address}",
            "--object-store-memory=80000000",
        )
        self._started[machine.name] = machine.popen(
            [*command, "--disable-usage-stats", *options],
            self._environment | environment,
            self.log(machine.name),
        )

    def log(self, name: str) -> Path:
        """The log of ``ray start`` of a host, or of a driver."""
        return self.network.folder / f"{name}.log"

    def kill(self, machine: Machine) -> None:
        """The power of a host fails."""
        self.network.remove(machine)

    def kill_raylet(self, machine: Machine) -> None:
        """SIGKILL for the raylet of a host; the other processes of Ray there end by themselves."""
        self.find(machine, "raylet/raylet")[0].send_signal(signal.SIGKILL)

    def ranks(self, machine: Machine) -> list[psutil.Process]:
        """The processes of a host that train."""
        warm = self.find(machine, "mtl_ray.training.rank_process")
        numbers = {process.pid for process in warm}
        return [process for process in warm if _parent(process) in numbers]

    def holders(self, machine: Machine) -> list[psutil.Process]:
        """The workers of Ray Train on a host, each of which holds a rank."""
        return self.find(machine, "ray::RayTrainWorker")

    def find(self, machine: Machine, text: str) -> list[psutil.Process]:
        """Processes of a host whose command line has a text."""
        found = []
        for process in machine.processes():
            try:
                if text in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def link(self, machine: Machine, *, up: bool) -> None:
        """Disconnects the network of a host, or connects it again."""
        machine.set_link(up=up)

    def drain(self, machine: Machine, seconds: int = 60) -> None:
        """Drains a node, as the spot watcher does."""
        self.leaving.add(machine)
        node = self.alive()[machine.address]
        reason = (
            "--reason=DRAIN_NODE_REASON_PREEMPTION",
            "--reason-message=spot",
            f"--deadline-remaining-seconds={seconds}",
        )
        status = self.run(
            ["ray", "drain-node", f"--address={self.address}", f"--node-id={node}", *reason],
            "drain",
        ).wait(PATIENCE_S)
        assert status == 0, self.log("drain").read_text()

    def run(
        self, command: Sequence[str], name: str, environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Starts a driver on the head; its output is added to ``log(name)``."""
        more = {"RAY_ADDRESS": self.address, **(environment or {})}
        return self.head.popen(command, self._environment | more, self.log(name))

    def alive(self) -> dict[str, str]:
        """The nodes that the head considers alive: id by address."""
        nodes = self.api("/api/v0/nodes?limit=1000&detail=1")["data"]["result"]["result"]
        return {node["node_ip"]: node["node_id"] for node in nodes if node["state"] == "ALIVE"}

    def api(self, path: str) -> Any:
        """The answer of the dashboard, with the token."""
        request = urllib.request.Request(
            self.url(path), headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def url(self, path: str) -> str:
        """Of the dashboard."""
        return f"http://{self.head.address}:{DASHBOARD_PORT}{path}"

    def _answers(self) -> bool:
        try:
            return self.head.address in self.alive()
        except OSError:
            return False


def _parent(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return None


def kill_tree(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL for the program that ``run`` started inside the host, and for its launcher."""
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    process.kill()
    process.wait()


def tell(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Sends a signal to the program that ``run`` started inside the host."""
    children = psutil.Process(process.pid).children()
    os.kill((children[0].pid if children else process.pid), number)


def wait_until(
    holds: Callable[[], bool], what: str, log: Path | None = None, patience_s: float = PATIENCE_S
) -> None:
    """Polls five times a second.

    Raises:
        TimeoutError: with the end of the log.
    """
    end = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(
                f"waited in vain until {what}"
                + (f"\n{log.read_text()[-5000:]}" if log is not None and log.exists() else "")
            )
        time.sleep(0.2)
