"""Batch normalisation over the batch of all ranks, on a GPU by torch's own module, on a CPU (where that refuses) by this one."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronise(model: nn.Module, device: torch.device) -> None:
    """Lets every batch normalisation layer of a model, timm's among them, count over all ranks; weights and their names stay."""
    if device.type == "cuda":
        convert_sync_batchnorm(model)
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            vars(module)["forward"] = partial(_forward, module, module.forward)


def _forward(norm: Any, plain: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What ``norm`` does in training, with mean and variance over all ranks; outside training, what it always does."""
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
