"""One rank in a process of its own, connected by a socket to the process that started it; and how
ranks find each other.

Either process may be killed at any moment; the other then sees the socket close. Imports torch only
where a rank runs.
"""

import os
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any, cast

from mtl_ray.experiment import ExperimentConfig

STOP = "stop"
"""The one message that the starter may send: stop with a checkpoint."""
_BACKLOG = 1024
"""Ranks that may connect to rank 0 at the same moment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankTask:
    """The first message to a rank.

    Attributes:
        config: of the run.
        rank, world_size, local_rank: its place.
        gpu: computes on the GPU that the environment shows, else on the CPU.
        rendezvous: host and port of rank 0, where the process group forms.
        timeout_s: after which ranks that wait for each other give up.
        environment: all variables.
    """

    config: ExperimentConfig
    rank: int
    world_size: int
    local_rank: int
    gpu: bool
    rendezvous: tuple[str, int]
    timeout_s: float
    environment: Mapping[str, str]


class _Channel:
    """The rank's end of the socket; ends the process when the other end is gone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.stop = threading.Event()
        self.task: RankTask = connection.recv()
        threading.Thread(target=self._listen, daemon=True, name="channel").start()

    def _listen(self) -> None:
        try:
            while self._connection.recv() == STOP:
                self.stop.set()
        except (EOFError, OSError):
            os._exit(1)

    def send(self, kind: str, content: Any = None) -> None:
        """Sends a message: its kind and its content."""
        with self._lock:
            self._connection.send((kind, content))


def main(path: str) -> None:
    """Trains the task that it receives through the socket at a path; its stdout and stderr are
    those of the other process.

    It sends ("progress", Progress), ("saved", None), and in the end one of ("done", Summary),
    ("mistake", exception) and ("failed", text).
    """
    plug = socket.socket(socket.AF_UNIX)
    plug.connect(path)
    for number, file in enumerate(socket.recv_fds(plug, 1, 2)[1], start=1):
        os.dup2(file, number)
        os.close(file)
    channel = _Channel(Connection(plug.detach()))
    try:
        channel.send("done", _train(channel))
    except (ValueError, FileNotFoundError) as error:
        channel.send("mistake", error)
    except BaseException as error:
        traceback.print_exc()
        channel.send("failed", f"{type(error).__name__}: {error}")
    sys.stdout.flush()
    sys.stderr.flush()


def _train(channel: _Channel) -> Any:
    import torch

    from mtl_ray.training.context import RunContext, choose_device
    from mtl_ray.training.trainer import run

    task = channel.task
    os.environ.clear()
    os.environ.update(task.environment)
    torch.set_num_threads(int(task.environment.get("OMP_NUM_THREADS", "1")))
    device = choose_device("gpu" if task.gpu else "cpu", 0)
    with _process_group(task):
        context = RunContext(
            rank=task.rank,
            world_size=task.world_size,
            local_rank=task.local_rank,
            device=device,
            on_progress=lambda progress: channel.send("progress", progress),
            on_checkpoint=lambda uri, metrics: channel.send("saved"),
            should_stop=channel.stop.is_set,
        )
        return run(task.config, context)


@contextmanager
def _process_group(task: RankTask) -> Iterator[None]:
    """The process group of all ranks; none is needed for one."""
    import torch.distributed as dist

    if task.world_size == 1:
        yield
        return
    join_process_group(
        task.rendezvous, task.rank, task.world_size, gpu=task.gpu, timeout_s=task.timeout_s
    )
    yield
    dist.destroy_process_group()


def free_port(host: str) -> int:
    """A port that is free on an address of this machine now."""
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def join_process_group(
    rendezvous: tuple[str, int], rank: int, world_size: int, *, gpu: bool, timeout_s: float
) -> None:
    """Forms the process group of all ranks.

    Rank 0 listens on the given address alone; torch by itself would listen on all addresses of the
    machine.

    Args:
        rendezvous: host and port of rank 0.
        rank: of this process.
        world_size: number of ranks.
        gpu: gradients travel over NCCL instead of gloo.
        timeout_s: after which ranks that wait for each other give up.
    """
    import torch.distributed as dist

    host, port = rendezvous
    timeout = timedelta(seconds=timeout_s)
    listening = _listen(host, port) if rank == 0 else None
    store = cast(Any, dist).TCPStore(
        host,
        port,
        world_size,
        rank == 0,
        timeout,
        wait_for_workers=False,
        master_listen_fd=listening,
    )
    dist.init_process_group(
        "nccl" if gpu else "gloo", store=store, rank=rank, world_size=world_size, timeout=timeout
    )


def _listen(host: str, port: int) -> int:
    """The file descriptor of a listening socket; its next owner closes it."""
    listener = socket.socket(_family(host))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(_BACKLOG)
    return listener.detach()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
