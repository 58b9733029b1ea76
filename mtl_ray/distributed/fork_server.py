"""Fork servers, from which ranks start at once.

On each machine one process imports everything, waits, and forks itself for each rank. A worker of
Ray Train only holds a rank: it asks for a fork, passes messages between the rank and the run state,
and takes the rank down with it when it dies. Spare workers are kept ready too, see
``spare_workers``; they end with their job. A fork server outlives its driver by a minute, so that a
restarted job, or the next trial of a search, can use it. Only drivers with the same code and the
same runtime environment share one.
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
from mtl_ray.distributed.capacity import Resources, machines, num_fitting
from mtl_ray.distributed.run_state import GroupState
from mtl_ray.distributed.session import is_private
from mtl_ray.distributed.spare_workers import prestart
from mtl_ray.training.rank import STOP, RankTask

START_S = 120.0
"""Longest time until a rank answers; on a busy machine the first import takes nearly all of it."""
UNUSED_S = 60.0
"""How long a fork server without a driver lives."""
_NAMESPACE = "mtl_ray"


class RankForkServer:
    """An actor, one on each machine. It owns the process that is forked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used_at = time.monotonic()
        self._start()
        threading.Thread(
            target=self._end_unused,
            args=(ray.get_runtime_context().current_actor,),
            daemon=True,
            name="unused",
        ).start()

    def _start(self) -> None:
        environment = os.environ | {"PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "mtl_ray.training.rank_process"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    def _end_unused(self, this_actor: Any) -> None:
        while time.monotonic() - self._used_at < UNUSED_S:
            time.sleep(1)
        ray.kill(this_actor)

    def keep_alive(self) -> None:
        """A driver calls this every few seconds as long as it needs the server."""
        self._used_at = time.monotonic()

    def fork(self, path: str) -> None:
        """Starts a rank that connects to the Unix socket at ``path``."""
        self._send("rank", path)

    def wait_until_warm(self) -> None:
        """Returns when the process has imported everything."""
        with tempfile.TemporaryDirectory(prefix="mtl_ray-") as folder:
            self._send("ready", f"{folder}/ready")
            while self._process.poll() is None and not Path(folder, "ready").exists():
                time.sleep(0.1)

    def prestart(self, job: str, runtime_env: str, count: int) -> None:
        """Starts spare workers on this machine, see ``spare_workers.prestart``."""
        prestart(job, runtime_env, count)

    def _send(self, command: str, path: str) -> None:
        with self._lock:
            self._used_at = time.monotonic()
            if self._process.poll() is not None:
                self._start()
            assert self._process.stdin is not None
            self._process.stdin.write(f"{command} {path}\n")
            self._process.stdin.flush()


class RankForkServers:
    """The fork servers that a driver uses; it starts those that do not run yet.

    Args:
        request: resources of one worker.

    Attributes:
        code_hash: distinguishes them from the servers of drivers with other code on the same
            machines.
    """

    def __init__(self, request: Resources) -> None:
        self.code_hash = _code_hash()
        self._request = request
        self._actors: dict[str, Any] = {}
        self._warm: dict[str, ray.ObjectRef] = {}
        self._alive: dict[str, ray.ObjectRef] = {}
        self._spares: Counter[str] = Counter()
        self._group = 0

    def update(self) -> None:
        """Starts a server on every machine that can hold a worker and has none, and keeps the
        others alive.

        A driver calls this every few seconds, since machines may join.
        """
        for machine in machines():
            if num_fitting([machine.total], self._request):
                if machine.node_id not in self._actors or self._is_dead(machine.node_id):
                    self._start(machine.node_id)
                if machine.node_id not in self._alive:
                    self._alive[machine.node_id] = self._actors[machine.node_id].keep_alive.remote()

    def _start(self, node_id: str) -> None:
        on_node = NodeAffinitySchedulingStrategy(node_id, soft=False)
        name = {
            "name": _name(self.code_hash, node_id),
            "namespace": _NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
        }
        actor = (
            ray.remote(RankForkServer)
            .options(scheduling_strategy=on_node, num_cpus=0, max_concurrency=4, **name)
            .remote()
        )
        self._actors[node_id], self._warm[node_id] = actor, actor.wait_until_warm.remote()

    def _is_dead(self, node_id: str) -> bool:
        """Looks at the answer to the last ``keep_alive``, and forgets it so that the next one is
        sent.
        """
        call = self._alive.get(node_id)
        if call is not None and ray.wait([call], timeout=0)[0]:
            del self._alive[node_id]
            try:
                ray.get(call)
            except RayActorError:
                return True
        return False

    def is_warm(self, node_id: str) -> bool:
        """Whether ranks start at once on a machine."""
        return node_id in self._warm and bool(ray.wait([self._warm[node_id]], timeout=0)[0])

    def keep_spares(self, group: GroupState) -> None:
        """Keeps as many spare workers on each machine of a cluster as the next group may need,
        once ``group`` has saved a checkpoint.
        """
        if is_private() or not group.saved:
            return
        job, ranks = ray.get_runtime_context().get_job_id(), Counter(group.nodes)
        if group.number != self._group:
            self._group = group.number
            self._spares -= ranks
            # each group has one actor on this machine, at which its workers synchronise
            prestart(job, group.controller_env, 1)
        for machine in machines():
            wanted = min(max(ranks.values()), num_fitting([machine.total], self._request))
            lacking = wanted - self._spares[machine.node_id]
            if lacking > 0 and self.is_warm(machine.node_id):
                self._spares[machine.node_id] += lacking
                self._actors[machine.node_id].prestart.remote(job, group.runtime_env, lacking)


def _code_hash() -> str:
    """Differs if the runtime environment, the Python or a file of the code differs."""
    root = Path(mtl_ray.__file__).parent
    parts = [ray.get_runtime_context().get_runtime_env_string(), sys.executable, python_path()]
    for path in sorted(root.rglob("*.py")):
        parts.append(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def python_path() -> str:
    """The PYTHONPATH with which a child process imports the same modules as this one."""
    return os.pathsep.join(path for path in sys.path if path)


def _name(code_hash: str, node_id: str) -> str:
    return f"rank fork server {code_hash} {node_id}"


def _server_on_this_node(code_hash: str) -> Any:
    until = time.monotonic() + START_S
    while True:
        try:
            return ray.get_actor(
                _name(code_hash, ray.get_runtime_context().get_node_id()), namespace=_NAMESPACE
            )
        except ValueError:  # the driver starts it as soon as it sees the machine
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


class ForkedRank:
    """The process of a rank, as its worker sees it."""

    def __init__(self, channel: socket.socket, connection: Connection) -> None:
        self._channel, self._connection = channel, connection

    def kill(self) -> None:
        """Ends the rank at once; messages that it has not sent yet are lost."""
        with suppress(OSError):  # it has just ended by itself
            self._channel.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Asks the rank to save a checkpoint and stop."""
        with suppress(OSError):  # it has just ended by itself
            self._connection.send(STOP)

    def messages(self) -> Iterator[tuple[str, Any]]:
        """The messages of the rank, until it ends."""
        while True:
            try:
                yield self._connection.recv()
            except (EOFError, OSError):
                return


@contextmanager
def forked_rank(task: RankTask, code_hash: str) -> Iterator[ForkedRank]:
    """Starts a rank from the fork server of this machine.

    The rank ends when this process ends, or when the block is left. The rank writes to the standard
    output and error of this process, so Ray attributes its output to this job.
    """
    with (
        tempfile.TemporaryDirectory(prefix="mtl_ray-") as folder,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        path = str(Path(folder) / "rank")
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(START_S)
        ray.get(_server_on_this_node(code_hash).fork.remote(path))
        channel, _ = listener.accept()
    channel.setblocking(True)
    socket.send_fds(channel, [b"."], [1, 2])
    with channel, Connection(os.dup(channel.fileno())) as connection:
        connection.send(task)
        yield ForkedRank(channel, connection)
