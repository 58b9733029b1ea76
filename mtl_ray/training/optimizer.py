"""Parameter groups, the optimizer, and its values that change from step to step."""

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import nn

from mtl_ray.training.config import AdamW, Optimizer, ParameterRule, ScheduleConfig, Sgd
from mtl_ray.training.schedule import lr_factor, ramp

BACKBONE = "trunk.backbone."
MOST_NEAR = 3
"""How many similar names the error of a rule without parameters lists."""


def build_optimizer(
    module: nn.Module,
    config: Optimizer,
    batch: int,
    *,
    decay_changes: bool = False,
    prefix: str = "",
) -> torch.optim.Optimizer:
    """The optimizer of a config; each group has ``lr`` and the ``base_lr`` that the schedule
    multiplies.

    Vectors and scalars (biases, normalisation) are not decayed. Learning rates of the backbone are
    multiplied by ``backbone_lr`` and, from its last stage down, by ``layer_decay`` for each stage
    (Clark et al. 2020, ELECTRA; Bao et al. 2022, BEiT). ``rules`` come on top.

    Args:
        module: whose parameters learn.
        config: of the optimizer.
        batch: samples of one step over all ranks, for ``scale_to_batch`` (Goyal et al. 2017).
        decay_changes: the weight decay will change, so parameters are grouped by its factor even
            where it is 0 now.
        prefix: of the model in ``module``; rules and stages see names without it.

    Raises:
        ValueError: if a rule matches no parameter that learns.
    """
    lr = config.lr * (batch / config.scale_to_batch if config.scale_to_batch else 1.0)
    groups = parameter_groups(_named(module, prefix), config, lr, decay_changes)
    match config:
        case Sgd():
            # Not fused: torch's fused sgd reads momentum that was never written if fp16 overflowed
            # in the very first step.
            return torch.optim.SGD(
                groups, lr=lr, momentum=config.momentum, nesterov=config.nesterov, foreach=True
            )
        case AdamW():
            return torch.optim.AdamW(groups, lr=lr, betas=config.betas, eps=config.eps, fused=True)


class ParameterFactors(NamedTuple):
    """Of one parameter: what its learning rate and the weight decay are multiplied by."""

    lr: float
    weight_decay: float


Parameters = Mapping[str, nn.Parameter]
"""By name, in the order in which the module names them."""


def _named(module: nn.Module, prefix: str) -> Parameters:
    """The parameters of a module; names lose ``prefix``.

    Raises:
        ValueError: if two have the same name then.
    """
    named = [
        (name.removeprefix(prefix), parameter) for name, parameter in module.named_parameters()
    ]
    parameters = dict(named)
    if len(parameters) < len(named):
        raise ValueError(
            f"a module beside the model ({prefix!r}) has parameters of the same names. Fix: rename "
            "it in the method"
        )
    return parameters


def parameter_groups(
    parameters: Parameters, config: Optimizer, lr: float, decay_changes: bool = False
) -> list[dict[str, Any]]:
    """Parameters by learning rate and weight decay; see ``build_optimizer``."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, factors in parameter_factors(parameters, config).items():
        decay = (
            factors.weight_decay if decay_changes else factors.weight_decay * config.weight_decay
        )
        groups[lr * factors.lr, decay].append(parameters[name])
    scale = config.weight_decay if decay_changes else 1.0
    return [
        {"params": members, "lr": rate, "base_lr": rate, "weight_decay": decay * scale}
        | ({"decay_factor": decay} if decay_changes else {})
        for (rate, decay), members in groups.items()
    ]


def parameter_factors(parameters: Parameters, config: Optimizer) -> dict[str, ParameterFactors]:
    """The factors of each parameter that learns, in the order of ``parameters``."""
    stages = _stages(parameters)
    deepest = max(stages.values(), default=0)
    learning = {
        name: parameter for name, parameter in parameters.items() if parameter.requires_grad
    }
    rules = _rules_of(list(learning), config.rules)
    found = {}
    for name, parameter in learning.items():
        rule = rules.get(name)
        lr = (
            config.backbone_lr * config.layer_decay ** (deepest + 1 - stages[name])
            if name in stages
            else 1.0
        )
        decay = 1.0 if parameter.ndim > 1 else 0.0
        if rule is not None:
            lr, decay = lr * rule.lr, decay if rule.weight_decay is None else rule.weight_decay
        found[name] = ParameterFactors(lr, decay)
    return found


def _rules_of(names: Sequence[str], rules: Sequence[ParameterRule]) -> dict[str, ParameterRule]:
    """The rule of each parameter that has one: the first that matches its name.

    Raises:
        ValueError: if a rule has no parameter.
    """
    chosen: dict[str, ParameterRule] = {}
    for index, rule in enumerate(rules):
        matching = [name for name in names if _matches(rule.match, name)]
        mine = [name for name in matching if name not in chosen]
        if not mine:
            where = f"schedule.optimizer.rules.{index}: {rule.match!r}"
            if matching:
                raise ValueError(
                    f"{where} changes nothing: earlier rules have all {len(matching)} parameters "
                    "that it matches"
                )
            raise ValueError(
                f"{where} matches no parameter that learns; near it are "
                f"{', '.join(_near(rule.match, names))}"
            )
        chosen |= dict.fromkeys(mine, rule)
    return chosen


def _matches(pattern: str, name: str) -> bool:
    return (
        re.search(pattern[3:], name) is not None
        if pattern.startswith("re:")
        else fnmatchcase(name, pattern)
    )


def _near(pattern: str, names: Sequence[str]) -> list[str]:
    """Names that resemble a pattern, the most similar first."""
    words = re.sub(r"[^\w.]+", "", pattern.removeprefix("re:"))
    close = difflib.get_close_matches(words, names, n=MOST_NEAR, cutoff=0.0)
    holding = [name for name in names if words.strip(".") and words.strip(".") in name]
    return list(dict.fromkeys([*holding, *close]))[:MOST_NEAR]


def set_lr(optimizer: torch.optim.Optimizer, lr_factor: float) -> float:
    """Sets every group's learning rate to its ``base_lr`` times ``lr_factor``; returns the
    greatest.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * lr_factor
    return max(float(group["lr"]) for group in optimizer.param_groups)


class OptimizerSchedule:
    """Sets learning rate, weight decay and momentum of each group before a step; they depend on the
    step alone.

    Args:
        optimizer: from ``build_optimizer``; its state may be loaded afterwards.
        schedule: says how they change.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: ScheduleConfig) -> None:
        self._optimizer, self._schedule = optimizer, schedule

    def set(self, step: int, steps: int) -> float:
        """The values of a step, counted from 0; returns the greatest learning rate."""
        schedule = self._schedule
        if schedule.weight_decay is not None:
            decay = ramp(step, steps, schedule.weight_decay, schedule.optimizer.weight_decay)
            for group in self._optimizer.param_groups:
                group["weight_decay"] = decay * group["decay_factor"]
        if schedule.momentum is not None:
            self._set_momentum(
                ramp(step, steps, schedule.momentum, momentum_of(schedule.optimizer))
            )
        return set_lr(self._optimizer, lr_factor(step, steps, schedule.rate))

    def _set_momentum(self, momentum: float) -> None:
        for group in self._optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum


def momentum_of(config: Optimizer) -> float:
    """The momentum of sgd, the first beta of adamw."""
    return config.momentum if isinstance(config, Sgd) else config.betas[0]


def _stages(names: Iterable[str]) -> dict[str, int]:
    """The stage of each parameter of the backbone, by name, counted from the input on.

    A block that holds further blocks begins a stage (``layer2``, ``stages_0``, ``blocks.3``);
    single layers before the first are the stem, 0, and those after a stage belong to it.
    """
    stages: dict[str, int] = {}
    number, last = 0, ""
    for name in names:
        if not name.startswith(BACKBONE):
            continue
        parts = name.removeprefix(BACKBONE).removeprefix("net.").removeprefix("model.").split(".")
        stage = (
            ".".join(parts[:2])
            if len(parts) > 2 and parts[1].isdigit() and not parts[0][-1].isdigit()
            else parts[0]
        )
        if len(parts) > 2 and stage != last:
            number, last = number + 1, stage
        stages[name] = number
    return stages
