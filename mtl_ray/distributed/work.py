"""What a worker of Ray Train does: it holds one rank of a run. Imports no torch, so that it is there soon."""

import itertools
import os
import threading
from typing import Any

import ray
import ray.train
import ray.train.collective

from mtl_ray.distributed.board import POLL_S
from mtl_ray.distributed.nursery import Held, forked, python_path
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.training.rank import RankTask, free_port


def work(config: ExperimentConfig, gpu: bool, timeout_s: float, nurseries: str, board: Any) -> Any:
    """One rank of a run, until it is done.

    If a rank fails, all begin again in new processes, which takes seconds less than workers of Ray Train that begin again.

    Args:
        config: of the run.
        gpu: computes on a GPU.
        timeout_s: after which ranks that wait for each other give up.
        nurseries: ``Nurseries.family``.
        board: see there.

    Returns:
        The summary of the run; not finished if the driver asked the ranks to stop.

    Raises:
        ValueError, FileNotFoundError: what the user has to mend; the board knows it then.
        RuntimeError: if the rank failed or died, and nothing was saved since that happened last.
    """
    world = ray.train.get_context()
    here = ray.get_runtime_context()
    group = ray.get(board.join.remote(here.get_node_id(), here.get_runtime_env_string()))
    for turn in itertools.count():
        task = RankTask(
            config=config,
            rank=world.get_world_rank(),
            world_size=world.get_world_size(),
            local_rank=world.get_local_rank(),
            gpu=gpu,
            rendezvous=ray.train.collective.broadcast_from_rank_zero(_meeting() if world.get_world_rank() == 0 else None),
            timeout_s=timeout_s,
            environment=os.environ | {"PYTHONPATH": python_path()},
        )
        try:
            summary = _hold(task, nurseries, board, group, turn)
        except RuntimeError as error:
            if not ray.get(board.failed.remote(group, turn, str(error))):
                raise
        else:
            if ray.get(board.done.remote(group, turn)):
                return summary
    raise AssertionError("the turns never end")


def _meeting() -> tuple[str, int]:
    """A free port of this machine, at the address by which the others know it."""
    host = ray.util.get_node_ip_address()
    return host, free_port(host)


def _hold(task: RankTask, nurseries: str, board: Any, group: int, turn: int) -> Any:
    over = threading.Event()
    with forked(task, nurseries) as held:
        threading.Thread(target=_pass_on, args=(held, board, group, turn, over), daemon=True, name="board").start()
        try:
            return _outcome(held, board, group)
        finally:
            over.set()


def _pass_on(held: Held, board: Any, group: int, turn: int, over: threading.Event) -> None:
    """A thread: the driver's wish that the ranks stop, and the end of one that would wait for another in vain."""
    told = False
    while not over.wait(POLL_S):
        stop, end = ray.get(board.asked.remote(group, turn))
        if end:
            held.end()
            return
        if stop and not told:
            held.stop()
            told = True


def _outcome(held: Held, board: Any, group: int) -> Any:
    for what, content in held.words():
        if what == "progress":
            board.tell.remote(group, content)
        elif what == "saved":
            board.saved.remote(group)
        elif what == "done":
            return content
        elif what == "mistake":
            ray.get(board.fail.remote(group, content))
            raise content
        else:
            raise RuntimeError(content)
    raise RuntimeError("the process of the rank died")
