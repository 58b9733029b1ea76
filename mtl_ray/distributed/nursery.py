"""Ranks that start at once: on each machine a process waits that has imported everything, and is forked when a rank is wanted.

A worker of Ray Train is then only the hand that holds a rank: it has one forked, passes on what the two sides say, and dies with it.
"""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mtl_ray.distributed.world import Resources, fit, machines
from mtl_ray.training.rank import STOP, Task

START_S = 120.0
"""So long a rank may take to answer; nearly all of it is the first import on a busy machine."""


class Nursery:
    """An actor, one a machine: the process that is forked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "mtl_ray.training.warm"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=environment, start_new_session=True)

    def fork(self, path: str) -> None:
        """Has a rank begin that talks through a socket."""
        self._say("rank", path)

    def warm(self) -> None:
        """Returns when everything is imported."""
        with tempfile.TemporaryDirectory(prefix="mtl_ray-") as folder:
            self._say("ready", f"{folder}/ready")
            while self._process.poll() is None and not Path(folder, "ready").exists():
                time.sleep(0.1)

    def _say(self, word: str, path: str) -> None:
        with self._lock:
            if self._process.poll() is not None:
                self._start()
            assert self._process.stdin is not None
            self._process.stdin.write(f"{word} {path}\n")
            self._process.stdin.flush()


class Nurseries:
    """Those of one run, made by its driver.

    Args:
        request: what a worker asks of a machine.

    Attributes:
        run: what tells them from those of other runs on the same machines.
    """

    def __init__(self, request: Resources) -> None:
        self.run = uuid.uuid4().hex
        self._request = request
        self._actors: dict[str, Any] = {}
        self._warm: dict[str, ray.ObjectRef] = {}

    def spread(self) -> None:
        """Makes one on every machine that can have workers and has none yet, also on those that join while others train."""
        for machine in machines():
            if machine.node_id not in self._actors and fit([machine.total], self._request):
                there = NodeAffinitySchedulingStrategy(machine.node_id, soft=False)
                options = {"num_cpus": 0, "name": _name(self.run, machine.node_id), "max_restarts": -1, "max_concurrency": 4}
                self._actors[machine.node_id] = ray.remote(Nursery).options(scheduling_strategy=there, **options).remote()
                self._warm[machine.node_id] = self._actors[machine.node_id].warm.remote()

    def warm(self, node_id: str) -> bool:
        """Whether ranks start at once on a machine."""
        return node_id in self._warm and bool(ray.wait([self._warm[node_id]], timeout=0)[0])

    def close(self) -> None:
        """Ends them all; ranks that train are no part of them."""
        for actor in self._actors.values():
            ray.kill(actor)


def _name(run: str, node_id: str) -> str:
    return f"mtl_ray nursery {run} {node_id}"


def _nursery_here(run: str) -> Any:
    until = time.monotonic() + START_S
    while True:
        try:
            return ray.get_actor(_name(run, ray.get_runtime_context().get_node_id()))
        except ValueError:  # the driver makes it as soon as it sees the machine
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


class Held:
    """A rank, as the worker sees it that holds it."""

    def __init__(self, plug: socket.socket, connection: Connection) -> None:
        self._plug, self._connection = plug, connection

    def end(self) -> None:
        """Ends it, and what it would still say."""
        with suppress(OSError):  # it has just ended by itself
            self._plug.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Asks it to stop with a checkpoint."""
        with suppress(OSError):  # it has just ended by itself
            self._connection.send(STOP)

    def words(self) -> Iterator[tuple[str, Any]]:
        """What it says, until it is gone."""
        while True:
            try:
                yield self._connection.recv()
            except (EOFError, OSError):
                return


@contextmanager
def forked(task: Task, run: str) -> Iterator[Held]:
    """A rank that has begun, of a run whose nurseries are there. It ends when this process does, or when the block is left."""
    with tempfile.TemporaryDirectory(prefix="mtl_ray-") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(folder) / "rank")
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(START_S)
        ray.get(_nursery_here(run).fork.remote(path))
        plug, _ = listener.accept()
    plug.setblocking(True)
    with plug, Connection(os.dup(plug.fileno())) as connection:
        connection.send(task)
        yield Held(plug, connection)
