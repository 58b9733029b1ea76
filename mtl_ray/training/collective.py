"""What ranks tell each other besides gradients: small things, over gloo, on the CPU."""

from collections.abc import Callable
from typing import TypeVar

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

    def any(self, flag: bool) -> bool:
        """True if any rank says True."""
        if self._group is None:
            return flag
        total = torch.tensor([int(flag)])
        dist.all_reduce(total, group=self._group)
        return bool(total.item())

    def same_weights(self, model: nn.Module) -> None:
        """Gives the weights of rank 0 to all."""
        if self.world_size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)
