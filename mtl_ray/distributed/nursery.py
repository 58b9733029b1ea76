"""Ranks that start at once: on each machine a process waits that has imported everything, and is forked when a rank is wanted.

A worker of Ray Train is then only the hand that holds a rank: it has one forked, passes on what the two sides say, and dies with it.
Hands are kept ready too, see ``spares``; they end with their job. A nursery outlives its driver by a minute, so that a job that is given
again, or the next trial of a search, finds it; only drivers of the same code and runtime environment do.
"""

import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import mtl_ray
from mtl_ray.distributed.board import Present
from mtl_ray.distributed.session import is_private
from mtl_ray.distributed.spares import prestart
from mtl_ray.distributed.world import Resources, fit, machines
from mtl_ray.training.rank import STOP, RankTask

START_S = 120.0
"""So long a rank may take to answer; nearly all of it is the first import on a busy machine."""
UNUSED_S = 60.0
"""So long a nursery waits for the next driver."""
_NAMESPACE = "mtl_ray"


class Nursery:
    """An actor, one a machine: the process that is forked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used_at = time.monotonic()
        self._start()
        threading.Thread(target=self._end_unused, args=(ray.get_runtime_context().current_actor,), daemon=True, name="unused").start()

    def _start(self) -> None:
        environment = os.environ | {"PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "mtl_ray.training.fork_server"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=environment, start_new_session=True)

    def _end_unused(self, myself: Any) -> None:
        while time.monotonic() - self._used_at < UNUSED_S:
            time.sleep(1)
        ray.kill(myself)

    def stay(self) -> None:
        """By a driver, every few seconds for as long as it wants the nursery."""
        self._used_at = time.monotonic()

    def fork(self, path: str) -> None:
        """Has a rank begin that talks through a socket."""
        self._say("rank", path)

    def warm(self) -> None:
        """Returns when everything is imported."""
        with tempfile.TemporaryDirectory(prefix="mtl_ray-") as folder:
            self._say("ready", f"{folder}/ready")
            while self._process.poll() is None and not Path(folder, "ready").exists():
                time.sleep(0.1)

    def prestart(self, job: str, runtime_env: str, count: int) -> None:
        """See ``spares``."""
        prestart(job, runtime_env, count)

    def _say(self, word: str, path: str) -> None:
        with self._lock:
            self._used_at = time.monotonic()
            if self._process.poll() is not None:
                self._start()
            assert self._process.stdin is not None
            self._process.stdin.write(f"{word} {path}\n")
            self._process.stdin.flush()


class Nurseries:
    """Those that a driver uses; it makes the ones that are not there yet.

    Args:
        request: what a worker asks of a machine.

    Attributes:
        family: what tells them from those of drivers with other code on the same machines.
    """

    def __init__(self, request: Resources) -> None:
        self.family = _family()
        self._request = request
        self._actors: dict[str, Any] = {}
        self._warm: dict[str, ray.ObjectRef] = {}
        self._stays: dict[str, ray.ObjectRef] = {}
        self._spares: Counter[str] = Counter()
        self._group = 0

    def spread(self) -> None:
        """Makes one on every machine that can have workers and has none yet, also on those that join later; asks the others to stay."""
        for machine in machines():
            if fit([machine.total], self._request):
                if machine.node_id not in self._actors or self._is_dead(machine.node_id):
                    self._make(machine.node_id)
                if machine.node_id not in self._stays:
                    self._stays[machine.node_id] = self._actors[machine.node_id].stay.remote()

    def _make(self, node_id: str) -> None:
        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        name = {"name": _name(self.family, node_id), "namespace": _NAMESPACE, "lifetime": "detached", "get_if_exists": True}
        made = ray.remote(Nursery).options(scheduling_strategy=there, num_cpus=0, max_concurrency=4, **name).remote()
        self._actors[node_id], self._warm[node_id] = made, made.warm.remote()

    def _is_dead(self, node_id: str) -> bool:
        """Looks at the answer to what was asked last; another may then be asked."""
        asked = self._stays.get(node_id)
        if asked is not None and ray.wait([asked], timeout=0)[0]:
            del self._stays[node_id]
            try:
                ray.get(asked)
            except RayActorError:
                return True
        return False

    def warm(self, node_id: str) -> bool:
        """Whether ranks start at once on a machine."""
        return node_id in self._warm and bool(ray.wait([self._warm[node_id]], timeout=0)[0])

    def keep_spares(self, present: Present) -> None:
        """Has each machine of a cluster keep as many hands ready as the next group may want of it, once the present one is at work."""
        if is_private() or not present.saved:
            return
        job, ranks = ray.get_runtime_context().get_job_id(), Counter(present.nodes)
        if present.number != self._group:
            self._group = present.number
            self._spares -= ranks
            prestart(job, present.controller_env, 1)  # each group has an actor here by which its workers wait for each other
        for machine in machines():
            wanted = min(max(ranks.values()), fit([machine.total], self._request))
            lacking = wanted - self._spares[machine.node_id]
            if lacking > 0 and self.warm(machine.node_id):
                self._spares[machine.node_id] += lacking
                self._actors[machine.node_id].prestart.remote(job, present.runtime_env, lacking)


def _family() -> str:
    """Differs if the runtime environment, the Python or a file of the code does."""
    root = Path(mtl_ray.__file__).parent
    said = [ray.get_runtime_context().get_runtime_env_string(), sys.executable, python_path()]
    for path in sorted(root.rglob("*.py")):
        said.append(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}")
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


def python_path() -> str:
    """What a Python that this one starts must know to import the same."""
    return os.pathsep.join(path for path in sys.path if path)


def _name(family: str, node_id: str) -> str:
    return f"nursery {family} {node_id}"


def _nursery_here(family: str) -> Any:
    until = time.monotonic() + START_S
    while True:
        try:
            return ray.get_actor(_name(family, ray.get_runtime_context().get_node_id()), namespace=_NAMESPACE)
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
def forked(task: RankTask, family: str) -> Iterator[Held]:
    """A rank that has begun, from ``Nurseries`` that are there. It ends when this process does, or when the block is left.

    What it prints goes where this process prints, so that Ray counts it as said by this job.
    """
    with tempfile.TemporaryDirectory(prefix="mtl_ray-") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(folder) / "rank")
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(START_S)
        ray.get(_nursery_here(family).fork.remote(path))
        plug, _ = listener.accept()
    plug.setblocking(True)
    socket.send_fds(plug, [b"."], [1, 2])
    with plug, Connection(os.dup(plug.fileno())) as connection:
        connection.send(task)
        yield Held(plug, connection)
