"""What ranks tell each other besides gradients: small things, over gloo, on the CPU."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from mtl_ray.training.context import RunContext

Value = TypeVar("Value")


class Collective:
    """The ranks of a run; with one rank nothing is sent."""

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
        """The values of all ranks, by rank, on rank 0; an empty list on the others, which do not get them."""
        if self._group is None:
            return [value]
        values: list[Value | None] | None = [None] * self.world_size if self.rank == 0 else None
        dist.gather_object(value, values, dst=0, group=self._group)
        return values or []  # type: ignore[return-value]

    def longest(self, seconds: float) -> float:
        """The most that any rank says, on every rank."""
        if self._group is None:
            return seconds
        found = torch.tensor(seconds, dtype=torch.float64)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self._group)
        return float(found)

    def vote(self) -> "Vote":
        """A question that all ranks are asked after every step."""
        return Vote(dist.new_group(backend="gloo") if self.world_size > 1 else None)

    def same_weights(self, model: nn.Module) -> None:
        """Gives the weights of rank 0 to all."""
        if self.world_size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)


class Vote:
    """Whether any rank said True. The answers travel while the next step is made, so nobody waits: all hear of it one step later.

    Args:
        group: of the ranks, for votes alone; None if there is one rank, which hears at once.
    """

    def __init__(self, group: Any) -> None:
        self._group = group
        self._open: tuple[dist.Work, torch.Tensor] | None = None

    def __call__(self, flag: bool) -> bool:
        """Says this rank's answer after a step, and tells the outcome of the vote that is through; the same on every rank."""
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
