"""What one rank of a run is given: its place among the others, its device, its hooks, and torch's algorithms."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from mtl_ray.training.progress import Progress


def _ignore_progress(progress: Progress) -> None:
    """The default: nobody watches."""


def _ignore_checkpoint(uri: str, metrics: Mapping[str, float]) -> None:
    """The default: nobody waits for checkpoints."""


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """The place of one rank, and its hooks. Where ``world_size`` is above 1 a torch process group is there already.

    Attributes:
        rank, world_size, local_rank: as torchrun gives them.
        device: what this rank computes on.
        on_progress: called on rank 0.
        on_checkpoint: called on rank 0 when a checkpoint lies whole at a URI, with the metrics that were measured on it (if any).
        should_stop: asked on every rank after every step, so it must answer at once; if any says True, all stop with a checkpoint.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    on_progress: Callable[[Progress], None] = _ignore_progress
    on_checkpoint: Callable[[str, Mapping[str, float]], None] = _ignore_checkpoint
    should_stop: Callable[[], bool] = _never


def choose_device(wanted: str, local_rank: int, local_size: int = 1) -> torch.device:
    """The device of a rank for ``runtime.device``: auto takes a GPU where there is one.

    Args:
        wanted: auto, cpu or gpu.
        local_rank: of this rank among those of its machine.
        local_size: how many those are. All see that GPUs are too few, so that none waits for one that cannot come.

    Raises:
        ValueError: if a GPU is wanted and there are not enough.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and available == 0):
        return torch.device("cpu")
    needed = max(local_size, local_rank + 1)
    if needed > available:
        raise ValueError(
            f"{needed} workers on this machine need a GPU each, and it has {available}; set runtime.device=cpu or fewer runtime.workers"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


@contextmanager
def numerics(deterministic: bool) -> Iterator[None]:
    """Only deterministic algorithms inside, or the fastest that cuDNN finds; afterwards the flags are restored."""
    flags = (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, not deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(flags[0])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = flags[1:]
