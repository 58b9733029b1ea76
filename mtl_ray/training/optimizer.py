"""Parameter groups and the optimiser."""

from collections import defaultdict
from typing import Any

import torch
from torch import nn

from mtl_ray.training.config import Optimizer

BACKBONE = "trunk.backbone.net."


def build_optimizer(model: nn.Module, config: Optimizer, batch: int) -> torch.optim.Optimizer:
    """The optimiser of a config; each group has ``lr`` and the ``base_lr`` that the schedule multiplies.

    Vectors and scalars (biases, normalisation) are not decayed. Rates of the backbone are multiplied by ``backbone_lr`` and, from
    its last stage down, by ``layer_decay`` for each stage (Clark et al. 2020, ELECTRA; Bao et al. 2022, BEiT).

    Args:
        model: whose parameters learn.
        config: of the optimiser.
        batch: samples of one step over all ranks, for ``scale_to_batch`` (Goyal et al. 2017).
    """
    lr = config.lr * (batch / config.scale_to_batch if config.scale_to_batch else 1.0)
    groups = parameter_groups(model, config, lr)
    if config.type == "sgd":
        # Not fused: torch's fused sgd reads momentum that was never written if fp16 overflowed in the very first step.
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, foreach=True)
    return torch.optim.AdamW(groups, lr=lr, betas=(config.momentum, 0.999), fused=True)


def parameter_groups(model: nn.Module, config: Optimizer, lr: float) -> list[dict[str, Any]]:
    """Parameters by rate and decay, in the order in which the model names them."""
    stages = _stages(model)
    deepest = max(stages.values(), default=0)
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = lr
        if name.startswith(BACKBONE):
            rate *= config.backbone_lr * config.layer_decay ** (deepest + 1 - stages[name])
        groups[rate, config.weight_decay if parameter.ndim > 1 else 0.0].append(parameter)
    return [
        {"params": members, "lr": rate, "base_lr": rate, "weight_decay": weight_decay} for (rate, weight_decay), members in groups.items()
    ]


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Multiplies every group's own rate by ``factor``; returns the greatest."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return max(float(group["lr"]) for group in optimizer.param_groups)


def _stages(model: nn.Module) -> dict[str, int]:
    """The stage of each parameter of the backbone, by name, counted from the input on.

    A block that holds further blocks begins a stage (``layer2``, ``stages_0``, ``blocks.3``); single layers before the first are the
    stem, 0, and those after a stage belong to it.
    """
    stages: dict[str, int] = {}
    number, last = 0, ""
    for name, _ in model.named_parameters():
        if not name.startswith(BACKBONE):
            continue
        parts = name.removeprefix(BACKBONE).removeprefix("model.").split(".")
        stage = ".".join(parts[:2]) if len(parts) > 2 and parts[1].isdigit() and not parts[0][-1].isdigit() else parts[0]
        if len(parts) > 2 and stage != last:
            number, last = number + 1, stage
        stages[name] = number
    return stages
