"""What one rank of a run is given (its place, device and hooks), and what ranks tell each other
besides gradients.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from mtl_ray.training.progress import Progress

Value = TypeVar("Value")


def _ignore_progress(progress: Progress) -> None:
    """The default: nobody watches."""


def _ignore_checkpoint(uri: str, metrics: Mapping[str, float]) -> None:
    """The default: nobody waits for checkpoints."""


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """The place of one rank, and its hooks.

    Where ``world_size`` is above 1 a torch process group is there already.

    Attributes:
        rank, world_size, local_rank: as torchrun gives them.
        device: what this rank computes on.
        on_progress: called on rank 0.
        on_checkpoint: called on rank 0 when a checkpoint is whole at a URI, with its metrics (if
            any).
        should_stop: called on every rank after every step, so it must return at once; if any
            returns True, all stop with a checkpoint.
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
        local_size: how many those are. All see that GPUs are too few, so that none waits for one
            that cannot come.

    Raises:
        ValueError: if a GPU is wanted and there are not enough.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and available == 0):
        return torch.device("cpu")
    needed = max(local_size, local_rank + 1)
    if needed > available:
        raise ValueError(
            f"{needed} workers on this machine need a GPU each, and it has {available}; set "
            "runtime.device=cpu or fewer runtime.workers"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


@contextmanager
def numerics(deterministic: bool) -> Iterator[None]:
    """Only deterministic algorithms inside, or the fastest that cuDNN finds; afterwards the flags
    are restored.
    """
    flags = (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = (
        deterministic,
        not deterministic,
    )
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(flags[0])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = flags[1:]


class Collective:
    """Sends small objects between the ranks, over gloo, on the CPU; with one rank it sends
    nothing.
    """

    def __init__(self, context: RunContext) -> None:
        self.rank, self.world_size = context.rank, context.world_size
        self._group: dist.ProcessGroup | None = None
        if context.world_size > 1:
            group = dist.new_group(backend="gloo")
            assert isinstance(group, dist.ProcessGroup)
            self._group = group

    def decide(self, function: Callable[[], Value]) -> Value:
        """Runs a function on rank 0 and gives its result to all.

        Raises:
            ValueError: on every rank, if the function raises one (or FileNotFoundError, likewise).
        """
        if self._group is None:
            return function()
        found: list[Value | ValueError | FileNotFoundError | None] = [None]
        if self.rank == 0:
            try:
                found = [function()]
            except (ValueError, FileNotFoundError) as error:
                found = [error]
        dist.broadcast_object_list(found, src=0, group=self._group)
        if isinstance(found[0], ValueError | FileNotFoundError):
            raise found[0]
        return found[0]  # type: ignore[return-value]

    def gather(self, value: Value) -> list[Value]:
        """The values of all ranks, by rank, on every rank."""
        if self._group is None:
            return [value]
        values: list[Value | None] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._group)
        return values  # type: ignore[return-value]

    def gather_first(self, value: Value) -> list[Value]:
        """The values of all ranks, by rank, on rank 0; an empty list on the others."""
        if self._group is None:
            return [value]
        values: list[Value | None] | None = [None] * self.world_size if self.rank == 0 else None
        dist.gather_object(value, values, dst=0, group=self._group)
        return values or []  # type: ignore[return-value]

    def longest(self, seconds: float) -> float:
        """The maximum over all ranks, on every rank."""
        if self._group is None:
            return seconds
        found = torch.tensor(seconds, dtype=torch.float64)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self._group)
        return float(found)

    def vote(self) -> "Vote":
        """A vote of all ranks after every step."""
        return Vote(dist.new_group(backend="gloo") if self.world_size > 1 else None)

    def same_weights(self, model: nn.Module) -> None:
        """Broadcasts the weights of rank 0."""
        if self.world_size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)


class Vote:
    """Whether any rank voted True.

    The sum overlaps with the next step, so no rank waits: the result comes one step later.

    Args:
        group: of the ranks, for votes alone; None if there is one rank, which has the result at
            once.
    """

    def __init__(self, group: Any) -> None:
        self._group = group
        self._open: tuple[dist.Work, torch.Tensor] | None = None

    def __call__(self, flag: bool) -> bool:
        """Votes after a step; returns the result of the vote before, the same on every rank."""
        if self._group is None:
            return flag
        before, total = self._open, torch.tensor([int(flag)])
        work = dist.all_reduce(total, group=self._group, async_op=True)
        assert work is not None
        self._open = (work, total)
        if before is None:
            return False
        before[0].wait()
        return bool(before[1].item())
