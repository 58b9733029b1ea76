"""The gradients of a model in a few flat buffers, which are summed over the ranks during backward.

Gradients are summed, not averaged, since a loss term is a sum divided by its count over all ranks.
The layout of the buffers depends on the parameters alone, so a resumed run adds up in the same
order as an uninterrupted one, at any number of ranks.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET_BYTES = 25 << 20
"""Large enough to hide latency, small enough that the first sum starts early in backward."""


class Gradients:
    """Owns ``.grad`` of every parameter as views of flat buffers.

    Args:
        parameters: those that learn, in a fixed order, all of one dtype and on one device.
        world_size: number of ranks.
        overlap: sum a buffer as soon as backward has filled it. Off where the model itself
            communicates in backward (synchronised batch normalisation), since the ranks must meet
            in one order.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        world_size: int,
        *,
        overlap: bool = True,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self.world_size = world_size
        self.buckets: list[Tensor] = []
        self._members: list[int] = []
        self._waiting: list[int] = []
        self._works: list[dist.Work] = []
        self._armed = False
        for members in _buckets(list(parameters), bucket_bytes):
            self._add(members, hooked=overlap and world_size > 1)

    def _add(self, members: list[nn.Parameter], hooked: bool) -> None:
        number = len(self.buckets)
        flat = torch.zeros(
            sum(p.numel() for p in members), dtype=members[0].dtype, device=members[0].device
        )
        start = 0
        for parameter in members:
            parameter.grad = flat.as_strided(parameter.shape, parameter.stride(), start)
            start += parameter.numel()
            if hooked:
                cast(Any, parameter).register_post_accumulate_grad_hook(
                    lambda _, number=number: self._filled(number)
                )
        self.buckets.append(flat)
        self._members.append(len(members))
        self._waiting.append(0)

    def zero(self) -> None:
        """Called before the first backward of a step."""
        for flat in self.buckets:
            flat.zero_()

    def arm(self) -> None:
        """Called before the last backward of a step: full buffers may then be sent."""
        self._waiting = list(self._members)
        self._armed = True

    def _filled(self, number: int) -> None:
        """One more parameter of a bucket has its gradient.

        Buckets are sent in order, so that the collectives of all ranks match.
        """
        if not self._armed:
            return
        self._waiting[number] -= 1
        while len(self._works) < len(self.buckets) and self._waiting[len(self._works)] <= 0:
            self._send()

    def _send(self) -> None:
        self._works.append(dist.all_reduce(self.buckets[len(self._works)], async_op=True))

    def wait(self) -> None:
        """Called after the last backward of a step: every buffer then holds the sum over all
        ranks.
        """
        if self.world_size > 1:
            while len(self._works) < len(self.buckets):
                self._send()
            for work in self._works:
                work.wait()
        self._works.clear()
        self._armed = False

    def clip(self, limit: float) -> Tensor:
        """Scales all gradients so that their Euclidean norm is at most ``limit``; returns the norm
        before.
        """
        norm = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(flat) for flat in self.buckets])
        )
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)
        for flat in self.buckets:
            flat.mul_(scale)
        return cast(Tensor, norm)


def _buckets(parameters: list[nn.Parameter], bucket_bytes: int) -> list[list[nn.Parameter]]:
    """From the last parameter to the first, about the order in which backward reaches them."""
    groups: list[list[nn.Parameter]] = []
    size = 0
    for parameter in reversed(parameters):
        if not groups or size >= bucket_bytes:
            groups.append([])
            size = 0
        groups[-1].append(parameter)
        size += parameter.numel() * parameter.element_size()
    return groups
