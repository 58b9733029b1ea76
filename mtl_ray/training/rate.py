"""The learning rate over a run, as a factor of each group's own rate."""

import math

from mtl_ray.training.config import ConstantRate, CosineRate, PolyRate, Rate, StepRate


def factor(step: int, steps: int, rate: Rate) -> float:
    """The factor of the learning rate for one step.

    Args:
        step: from 0.
        steps: of the whole run.
        rate: how it changes. cosine: Loshchilov and Hutter 2017 (SGDR, without restarts); poly: as in DeepLab (Chen et al. 2017).

    Returns:
        Above 0, at most 1; the warm-up multiplies whatever the rest says.
    """
    return _warmup(step, steps, rate) * _curve(step / max(1, steps), rate)


def _warmup(step: int, steps: int, rate: Rate) -> float:
    length = rate.warmup * steps if rate.warmup < 1 else rate.warmup
    return min(1.0, (step + 1) / (length + 1))


def _curve(done: float, rate: Rate) -> float:
    match rate:
        case ConstantRate():
            return 1.0
        case StepRate():
            return float(rate.gamma ** sum(done >= milestone for milestone in rate.milestones))
        case PolyRate():
            return float(rate.end + (1 - rate.end) * (1 - done) ** rate.power)
        case CosineRate():
            return rate.end + (1 - rate.end) * (1 + math.cos(math.pi * done)) / 2
