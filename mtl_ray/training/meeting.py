"""Where the ranks of a training find each other. Imports torch only when they meet."""

import socket
from datetime import timedelta
from typing import Any, cast

_WAITING = 1024
"""Ranks that may knock at the same moment."""


def free_port(host: str) -> int:
    """A port of this machine that nobody listens on at an address now."""
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def meet(place: tuple[str, int], rank: int, world_size: int, *, gpu: bool, timeout_s: float) -> None:
    """Makes the process group of all ranks.

    Rank 0 listens at the given address alone; torch by itself would listen at all that the machine has.

    Args:
        place: host and port of rank 0.
        rank: of this process.
        world_size: how many meet.
        gpu: gradients travel over NCCL instead of gloo.
        timeout_s: after which ranks that wait for each other give up.
    """
    import torch.distributed as dist

    host, port = place
    timeout = timedelta(seconds=timeout_s)
    listening = _listen(host, port) if rank == 0 else None
    store = cast(Any, dist).TCPStore(host, port, world_size, rank == 0, timeout, wait_for_workers=False, master_listen_fd=listening)
    dist.init_process_group("nccl" if gpu else "gloo", store=store, rank=rank, world_size=world_size, timeout=timeout)


def _listen(host: str, port: int) -> int:
    """A listening socket, whose next owner closes it."""
    listener = socket.socket(_family(host))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(_WAITING)
    return listener.detach()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
