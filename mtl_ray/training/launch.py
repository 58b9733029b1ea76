"""Ranks without Ray: this process alone, those of torchrun, or processes that are started here."""

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch.distributed as dist
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from mtl_ray.experiment import ExperimentConfig
from mtl_ray.training.context import RunContext, choose_device
from mtl_ray.training.progress import ProgressBar
from mtl_ray.training.rank import free_port, join_process_group
from mtl_ray.training.resume import Summary
from mtl_ray.training.trainer import run

RENDEZVOUS_S = 1800.0
"""Ranks that wait for each other longer than this give up; torch's default."""


def launch(config: ExperimentConfig) -> Summary | None:
    """Trains with ``runtime.workers`` processes (the most of ``{min, max}``); under torchrun with
    those that it started.

    SIGTERM stops the run with a checkpoint; it is not finished then, and the same call resumes it.

    Returns:
        What ``run`` returns; None on a rank above 0 of torchrun.

    Raises:
        ValueError, FileNotFoundError: as ``run`` does, whichever rank it was.
    """
    if "WORLD_SIZE" in os.environ and "RANK" in os.environ:
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local = (
            int(os.environ.get("LOCAL_RANK", rank)),
            int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        )
        summary = _run_rank(config, rank, world_size, local)
        return summary if rank == 0 else None
    if config.runtime.most_workers == 1:
        return _run_rank(config, 0, 1, (0, 1))
    return _spawn(config)


def _spawn(config: ExperimentConfig) -> Summary:
    rendezvous = ("127.0.0.1", free_port("127.0.0.1"))
    os.environ.setdefault(
        "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // config.runtime.most_workers))
    )
    if "lo" in (name for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    results: Any = mp.get_context("spawn").SimpleQueue()
    try:
        with _on_sigterm(_pass_on):
            cast(Any, spawn)(
                _spawned, (config, rendezvous, results), nprocs=config.runtime.most_workers
            )
    except (ProcessRaisedException, ProcessExitedException):
        if results.empty():
            raise
    result = results.get()
    if isinstance(result, Exception):
        raise result
    summary: Summary = result
    return summary


def _spawned(
    rank: int, config: ExperimentConfig, rendezvous: tuple[str, int], results: Any
) -> None:
    """One process. torch sends it SIGINT when its parent is gone; it then ends at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    world_size = config.runtime.most_workers
    try:
        summary = _run_rank(config, rank, world_size, (rank, world_size), rendezvous)
    except (ValueError, FileNotFoundError) as error:
        results.put(error)
        raise
    if rank == 0:
        results.put(summary)


def _run_rank(
    config: ExperimentConfig,
    rank: int,
    world_size: int,
    local: tuple[int, int],
    rendezvous: tuple[str, int] | None = None,
) -> Summary:
    """One rank; it joins the others at ``rendezvous``, or where torchrun set it.

    ``local`` is its number among the ranks of this machine, and how many those are.
    """
    device = choose_device(config.runtime.device, *local)
    gpu = device.type == "cuda"
    if world_size > 1 and rendezvous is not None:
        join_process_group(rendezvous, rank, world_size, gpu=gpu, timeout_s=RENDEZVOUS_S)
    elif world_size > 1:
        dist.init_process_group("nccl" if gpu else "gloo", rank=rank, world_size=world_size)
    bar = ProgressBar(config.runtime.name)
    stop = threading.Event()
    context = RunContext(
        rank=rank,
        world_size=world_size,
        local_rank=local[0],
        device=device,
        on_progress=bar.show,
        should_stop=stop.is_set,
    )
    try:
        with _on_sigterm(stop.set):
            return run(config, context)
    finally:
        bar.close()
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def _on_sigterm(call: Callable[[], None]) -> Iterator[None]:
    """Calls a function at SIGTERM instead of ending.

    Only the main thread can set that; in any other thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: call())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _pass_on() -> None:
    for process in multiprocessing.active_children():
        process.terminate()
