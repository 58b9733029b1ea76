"""Batch normalisation on several ranks: equal running statistics, or the batch of all ranks
(``runtime.sync_bn``).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNormSync:
    """Averages running means and variances over the ranks after each step, so that all ranks
    evaluate and save the same.
    """

    def __init__(self, module: nn.Module, world_size: int) -> None:
        self.world_size = world_size
        self.buffers = list(module.buffers())
        norms = [each for each in module.modules() if isinstance(each, _BatchNorm)]
        self._running: list[Tensor] = [
            buffer
            for norm in norms
            for buffer in (norm.running_mean, norm.running_var)
            if buffer is not None
        ]
        self._flat: Tensor | None = None
        self._work: dist.Work | None = None

    def start(self) -> None:
        """Called after the last forward of a step: starts the sum over ranks."""
        if self.world_size > 1 and self._running:
            self._flat = torch.cat([buffer.view(-1) for buffer in self._running])
            self._work = dist.all_reduce(self._flat, async_op=True)

    @torch.no_grad()
    def wait(self) -> None:
        """Called after backward: writes the mean into the buffers."""
        if self._work is None or self._flat is None:
            return
        self._work.wait()
        parts = torch.split(
            self._flat / self.world_size, [buffer.numel() for buffer in self._running]
        )
        torch._foreach_copy_(
            self._running,
            [part.view_as(buffer) for part, buffer in zip(parts, self._running, strict=True)],
        )
        self._work = self._flat = None

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Restores all buffers at the end."""
        before = [buffer.clone() for buffer in self.buffers]
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in zip(self.buffers, before, strict=True):
                    buffer.copy_(value)


def use_sync_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Every batch normalisation layer, timm's too, then uses the batch of all ranks.

    Weights and their names stay.

    On a GPU by torch's own module, on a CPU (which that does not support) by ``_forward``.
    """
    if device.type == "cuda":
        convert_sync_batchnorm(model)
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            vars(module)["forward"] = partial(_forward, module, module.forward)


def _forward(norm: Any, plain: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The forward of ``norm`` with mean and variance over all ranks; outside training its own."""
    if not norm.training:
        return plain(x)
    dims = [0, *range(2, x.ndim)]
    shape = (1, -1, *(1 for _ in dims[1:]))
    local = torch.cat([x.sum(dims), x.new_tensor([x.numel() / x.shape[1]])])
    total = _Sum.apply(local)
    mean = total[:-1] / total[-1]
    var = _Sum.apply((x - mean.view(shape)).square().sum(dims)) / total[-1]
    _track(norm, mean.detach(), var.detach() * total[-1] / (total[-1] - 1).clamp(min=1))
    y = (x - mean.view(shape)) * torch.rsqrt(var + norm.eps).view(shape)
    if norm.affine:
        y = y * norm.weight.view(shape) + norm.bias.view(shape)
    if hasattr(norm, "act"):
        y = norm.act(norm.drop(y))
    return cast(Tensor, y)


@torch.no_grad()
def _track(norm: Any, mean: Tensor, var: Tensor) -> None:
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(var, norm.momentum)


class _Sum(torch.autograd.Function):
    """The sum over ranks; its gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total
