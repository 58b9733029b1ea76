"""The running statistics of batch normalisation, kept equal on all ranks."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Statistics:
    """After each step the running means and variances are the mean over ranks, so evaluation and checkpoints see one model."""

    def __init__(self, model: nn.Module, world_size: int) -> None:
        self.world_size = world_size
        self.buffers = list(model.buffers())
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        self._running: list[Tensor] = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
        self._flat: Tensor | None = None
        self._work: dist.Work | None = None

    def share(self) -> None:
        """After the last forward of a step: begins to add up."""
        if self.world_size > 1 and self._running:
            self._flat = torch.cat([buffer.view(-1) for buffer in self._running])
            self._work = dist.all_reduce(self._flat, async_op=True)

    @torch.no_grad()
    def wait(self) -> None:
        """After backward: takes the mean over."""
        if self._work is None or self._flat is None:
            return
        self._work.wait()
        parts = torch.split(self._flat / self.world_size, [buffer.numel() for buffer in self._running])
        torch._foreach_copy_(self._running, [part.view_as(buffer) for part, buffer in zip(parts, self._running, strict=True)])
        self._work = self._flat = None

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """What forward does to buffers inside is undone."""
        before = [buffer.clone() for buffer in self.buffers]
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in zip(self.buffers, before, strict=True):
                    buffer.copy_(value)
