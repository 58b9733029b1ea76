"""An exponential moving average of the weights (Polyak and Juditsky 1992), which is then what is
measured and exported.
"""

import copy
import math

import torch

from mtl_ray.models.model import Model


class EmaModel:
    """A copy of a model whose weights follow those of the original slowly.

    Args:
        model: the one that learns.
        decay: how much of the average stays at each step; less in the first steps, so that the
            start is soon forgotten.
        warmup: steps after which 63 % of the decay are reached, as YOLOX and D-FINE do it; by
            default it is (1 + step) / (10 + step) until that is more than ``decay``.

    Attributes:
        model: the copy, in evaluation mode.
    """

    def __init__(self, model: Model, decay: float, warmup: float | None = None) -> None:
        self.decay, self.warmup = decay, warmup
        self.model: Model = copy.deepcopy(model).requires_grad_(False).eval()
        self._original = model
        self._source: list[torch.Tensor] = list(model.parameters())
        self._target: list[torch.Tensor] = list(self.model.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Called after each step, counted from 0.

        Buffers are copied: running statistics are averages already.
        """
        decay = ema_decay(step, self.decay, self.warmup)
        torch._foreach_lerp_(self._target, self._source, 1 - decay)
        torch._foreach_copy_(list(self.model.buffers()), list(self._original.buffers()))


def ema_decay(step: int, decay: float, warmup: float | None) -> float:
    """How much of the average stays after a step, counted from 0; see ``EmaModel``."""
    if warmup is None:
        return min(decay, (1 + step) / (10 + step))
    return decay * (1 - math.exp(-(step + 1) / warmup))
