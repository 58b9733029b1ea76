"""What a worker of Ray Train does: it holds one rank of a run.

This module imports no torch, so a worker starts fast.
"""

import itertools
import os
import threading
from typing import Any

import ray
import ray.train
import ray.train.collective

from mtl_ray.distributed.fork_server import ForkedRank, forked_rank, python_path
from mtl_ray.distributed.run_state import POLL_S
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.training.rank import RankTask, free_port


def run_worker(
    config: ExperimentConfig, gpu: bool, timeout_s: float, code_hash: str, run_state: Any
) -> Any:
    """Runs one rank until the run is done.

    If a rank fails, all ranks start again in new processes. That is seconds faster than a restart
    of the workers of Ray Train.

    Args:
        config: of the run.
        gpu: the rank computes on a GPU.
        timeout_s: after this time ranks that wait for each other give up.
        code_hash: ``RankForkServers.code_hash``.
        run_state: handle of the ``RunState``.

    Returns:
        The summary of the run; not finished if the driver asked the ranks to stop.

    Raises:
        ValueError, FileNotFoundError: an error that the user has to fix; it is recorded in the run
            state.
        RuntimeError: if the rank failed or died, and no checkpoint was saved since the last
            failure.
    """
    train_context = ray.train.get_context()
    ray_context = ray.get_runtime_context()
    group = ray.get(
        run_state.join.remote(ray_context.get_node_id(), ray_context.get_runtime_env_string())
    )
    for attempt in itertools.count():
        task = RankTask(
            config=config,
            rank=train_context.get_world_rank(),
            world_size=train_context.get_world_size(),
            local_rank=train_context.get_local_rank(),
            gpu=gpu,
            rendezvous=ray.train.collective.broadcast_from_rank_zero(
                _rendezvous() if train_context.get_world_rank() == 0 else None
            ),
            timeout_s=timeout_s,
            environment=os.environ | {"PYTHONPATH": python_path()},
        )
        try:
            summary = _run_rank(task, code_hash, run_state, group, attempt)
        except RuntimeError as error:
            if not ray.get(run_state.rank_failed.remote(group, attempt, str(error))):
                raise
        else:
            if ray.get(run_state.rank_done.remote(group, attempt)):
                return summary
    raise AssertionError("itertools.count never ends")


def _rendezvous() -> tuple[str, int]:
    """The address of this machine that the other machines know, and a free port there."""
    host = ray.util.get_node_ip_address()
    return host, free_port(host)


def _run_rank(task: RankTask, code_hash: str, run_state: Any, group: int, attempt: int) -> Any:
    over = threading.Event()
    with forked_rank(task, code_hash) as rank:
        arguments = (rank, run_state, group, attempt, over)
        threading.Thread(
            target=_forward_stops, args=arguments, daemon=True, name="run state"
        ).start()
        try:
            return _forward_messages(rank, run_state, group)
        finally:
            over.set()


def _forward_stops(
    rank: ForkedRank, run_state: Any, group: int, attempt: int, over: threading.Event
) -> None:
    """Runs in a thread.

    Stops the rank when the driver asks for it, and kills it when another rank of the attempt has
    failed.
    """
    stopped = False
    while not over.wait(POLL_S):
        stop, kill = ray.get(run_state.stop_requested.remote(group, attempt))
        if kill:
            rank.kill()
            return
        if stop and not stopped:
            rank.stop()
            stopped = True


def _forward_messages(rank: ForkedRank, run_state: Any, group: int) -> Any:
    for kind, content in rank.messages():
        if kind == "progress":
            run_state.update_progress.remote(group, content)
        elif kind == "saved":
            run_state.checkpoint_saved.remote(group)
        elif kind == "done":
            return content
        elif kind == "mistake":
            ray.get(run_state.record_user_error.remote(group, content))
            raise content
        else:
            raise RuntimeError(content)
    raise RuntimeError("the process of the rank died")
