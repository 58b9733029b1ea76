"""What changes over a run: the learning rate, as a factor of each group's own rate, weight decay and momentum."""

import math

from mtl_ray.training.config import ConstantRate, CosineRamp, CosineRate, PolyRate, Ramp, Rate, StepRate


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


def ramp(step: int, steps: int, config: Ramp, own: float) -> float:
    """A value of the optimizer for one step.

    Args:
        step: from 0.
        steps: of the whole run.
        config: how it changes; cosine as in DINO (Caron et al. 2021, https://arxiv.org/abs/2104.14294, section 3).
        own: what the optimizer has, from which it starts unless the config says otherwise.
    """
    start = own if config.start is None else config.start
    done = min(1.0, step / max(1, steps) / config.until)
    share = (1 - math.cos(math.pi * done)) / 2 if isinstance(config, CosineRamp) else done
    return start + (config.end - start) * share
