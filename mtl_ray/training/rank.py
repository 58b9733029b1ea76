"""One rank in a process of its own, which talks with the process that wanted it through a socket.

The other side may be killed at any moment, and so may this one: each sees the socket close.
"""

import os
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from mtl_ray.experiment import ExperimentConfig
from mtl_ray.training.meeting import meet

STOP = "stop"
"""What the other side may say: stop with a checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a rank is told first.

    Attributes:
        config: of the run.
        rank, world_size, local_rank: its place.
        gpu: computes on the GPU that the environment shows, else on the CPU.
        meeting: host and port where the ranks meet.
        timeout_s: after which ranks that wait for each other give up.
        environment: all variables.
    """

    config: ExperimentConfig
    rank: int
    world_size: int
    local_rank: int
    gpu: bool
    meeting: tuple[str, int]
    timeout_s: float
    environment: Mapping[str, str]


class _Channel:
    """The socket, as the rank sees it; ends the process when the other side is gone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.stop = threading.Event()
        self.task: Task = connection.recv()
        threading.Thread(target=self._listen, daemon=True, name="channel").start()

    def _listen(self) -> None:
        try:
            while self._connection.recv() == STOP:
                self.stop.set()
        except (EOFError, OSError):
            os._exit(1)

    def say(self, what: str, content: Any = None) -> None:
        """Sends a word and what belongs to it."""
        with self._lock:
            self._connection.send((what, content))


def main(path: str) -> None:
    """Trains as it is told through the socket at a path, and prints where the other side does.

    It says ("progress", Progress), ("saved", None), and in the end one of ("done", Summary), ("mistake", exception) and
    ("failed", text).
    """
    plug = socket.socket(socket.AF_UNIX)
    plug.connect(path)
    for number, file in enumerate(socket.recv_fds(plug, 1, 2)[1], start=1):
        os.dup2(file, number)
        os.close(file)
    channel = _Channel(Connection(plug.detach()))
    try:
        channel.say("done", _train(channel))
    except (ValueError, FileNotFoundError) as error:
        channel.say("mistake", error)
    except BaseException as error:
        traceback.print_exc()
        channel.say("failed", f"{type(error).__name__}: {error}")
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
    with _met(task):
        context = RunContext(
            rank=task.rank,
            world_size=task.world_size,
            local_rank=task.local_rank,
            device=device,
            on_progress=lambda progress: channel.say("progress", progress),
            on_checkpoint=lambda uri, metrics: channel.say("saved"),
            should_stop=channel.stop.is_set,
        )
        return run(task.config, context)


@contextmanager
def _met(task: Task) -> Iterator[None]:
    """The process group of all ranks; none is needed for one."""
    import torch.distributed as dist

    if task.world_size == 1:
        yield
        return
    meet(task.meeting, task.rank, task.world_size, gpu=task.gpu, timeout_s=task.timeout_s)
    yield
    dist.destroy_process_group()
