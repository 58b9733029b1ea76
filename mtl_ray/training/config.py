"""The ``schedule`` and ``runtime`` sections of a config: how long and how to optimize; where and on
what to run.
"""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT, DefaultType, Renamed, Retired


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ParameterRule:
    """How some parameters learn."""

    match: str = Field(min_length=1)
    """Names of parameters (``trunk.backbone.net.conv1.weight``) as a glob for the whole name, where
    ``*`` also covers dots and ``?`` is one character; or ``re:`` and a regular expression that is
    found anywhere in the name."""
    lr: float = Field(default=1.0, ge=0)
    """Factor of the learning rate, besides ``backbone_lr`` and ``layer_decay``."""
    weight_decay: float | None = Field(default=None, ge=0)
    """Factor of the weight decay. By default 1, and 0 for biases and normalisation layers."""

    def __post_init__(self) -> None:
        if self.match.startswith("re:"):
            try:
                re.compile(self.match[3:])
            except re.error as error:
                raise ValueError(
                    f"match: {self.match!r} is not a regular expression: {error}"
                ) from error


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _Optimizer:
    """What every optimizer has."""

    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    """Not applied to biases and normalisation layers, unless a rule says so."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each backbone stage learns at this factor of the rate of the stage above it."""
    backbone_lr: float = Field(default=1.0, ge=0)
    """Factor of the learning rate for the backbone."""
    scale_to_batch: int | None = Field(default=None, ge=1)
    """The batch that ``lr`` was chosen for: the rate is scaled by data.batch / this. Not scaled if
    absent."""
    rules: tuple[ParameterRule, ...] = ()
    """How single parameters learn; the first rule that matches a parameter counts. A rule must
    match at least one."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AdamW(_Optimizer):
    """AdamW (Loshchilov and Hutter 2019)."""

    type: Literal["adamw"] = "adamw"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.999,
    )
    """Decay of the running means of the gradient (the momentum) and of its square."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the denominator."""
    renamed: ClassVar[Mapping[str, Renamed]] = {
        "momentum": Renamed("betas", lambda momentum: [momentum, 0.999])
    }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Sgd(_Optimizer):
    """Stochastic gradient descent with momentum."""

    type: Literal["sgd"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    """Nesterov momentum (Sutskever et al. 2013)."""

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")


Optimizer = Annotated[Sgd | AdamW, Field(discriminator="type"), DefaultType("adamw")]
"""The optimizer and its parameter groups."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LinearRamp:
    """A value of the optimizer goes from one number to another along a line."""

    type: Literal["linear"] = "linear"
    start: float | None = Field(default=None, ge=0)
    """At the first step; by default what the optimizer has."""
    end: float = Field(ge=0)
    until: float = Field(default=1.0, gt=0, le=1)
    """Share of the run after which ``end`` is reached, and kept."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CosineRamp:
    """A value of the optimizer goes from one number to another along half a cosine, slowly at both
    ends (DINO, Caron et al. 2021).
    """

    type: Literal["cosine"] = "cosine"
    start: float | None = Field(default=None, ge=0)
    """At the first step; by default what the optimizer has."""
    end: float = Field(ge=0)
    until: float = Field(default=1.0, gt=0, le=1)
    """Share of the run after which ``end`` is reached, and kept."""


Ramp = Annotated[LinearRamp | CosineRamp, Field(discriminator="type"), DefaultType("cosine")]
"""How weight decay or momentum changes over the run."""


_OF_STEP = {
    "milestones": Retired([0.67, 0.92], "milestones are of a rate of type step"),
    "gamma": Retired(0.1, "gamma is of a rate of type step"),
}
_OF_POLY = {"power": Retired(0.9, "power is of a rate of type poly")}
_OF_BOTH = {"end": Retired(0.01, "end is of a rate of type poly or cosine")}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConstantLr:
    """The learning rate stays as it is after the warm-up."""

    type: Literal["constant"] = "constant"
    warmup: float = Field(default=0.03, ge=0)
    """Linear warm-up: a share of the run below 1, else a number of steps."""
    retired: ClassVar[Mapping[str, Retired]] = {**_OF_STEP, **_OF_POLY, **_OF_BOTH}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StepLr:
    """The learning rate falls at milestones."""

    type: Literal["step"] = "step"
    warmup: float = Field(default=0.03, ge=0)
    """Linear warm-up: a share of the run below 1, else a number of steps."""
    milestones: tuple[float, ...] = (0.67, 0.92)
    """Shares of the run after which the rate is multiplied by gamma."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    retired: ClassVar[Mapping[str, Retired]] = {**_OF_POLY, **_OF_BOTH}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PolyLr:
    """The learning rate falls with a power of what is left of the run."""

    type: Literal["poly"] = "poly"
    warmup: float = Field(default=0.03, ge=0)
    """Linear warm-up: a share of the run below 1, else a number of steps."""
    end: float = Field(default=0.01, ge=0, le=1)
    """Last rate, relative to the first."""
    power: float = Field(default=0.9, gt=0)
    retired: ClassVar[Mapping[str, Retired]] = _OF_STEP


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CosineLr:
    """The learning rate falls along half a cosine."""

    type: Literal["cosine"] = "cosine"
    warmup: float = Field(default=0.03, ge=0)
    """Linear warm-up: a share of the run below 1, else a number of steps."""
    end: float = Field(default=0.01, ge=0, le=1)
    """Last rate, relative to the first."""
    retired: ClassVar[Mapping[str, Retired]] = {**_OF_STEP, **_OF_POLY}


LrSchedule = Annotated[
    ConstantLr | StepLr | PolyLr | CosineLr, Field(discriminator="type"), DefaultType("cosine")
]
"""How the learning rate changes over the run."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScheduleConfig:
    """How long to train, and how."""

    epochs: float | None = Field(default=None, gt=0)
    """Visits of the whole training split; give this or ``steps``."""
    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps."""
    seconds: float | None = Field(default=None, gt=0)
    """Seconds of training after which the run is done even if steps are left. The learning rate
    follows the share of the time where that is larger than the share of the steps. Evaluations,
    checkpoints and the start do not count. The number of steps then depends on the machine."""
    optimizer: Optimizer = Field(default_factory=AdamW)
    rate: LrSchedule = Field(default_factory=CosineLr)
    weight_decay: Ramp | None = None
    """Changes the weight decay over the run, from ``optimizer.weight_decay``; the factors of rules
    and biases stay."""
    momentum: Ramp | None = None
    """Changes the momentum of sgd, or the first beta of adamw, over the run."""
    clip_grad_norm: float | None = Field(default=None, gt=0)
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches a step: data.batch is split into this many, and gradients are summed. Above 1
    each has two forwards, since the counts that losses are divided by must be known before the
    first backward."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, which is then what is evaluated and
    exported."""
    ema_warmup: float | None = Field(default=None, gt=0)
    """Steps over which the decay rises to ``ema``: ema x (1 - exp(-steps done / ema_warmup)), as
    YOLOX (2000) and D-FINE (1000) do it. By default it is at most (1 + step) / (10 + step)."""
    evaluate_every: float | None = Field(default=1.0, gt=0)
    """Epochs between evaluations; the end of the run is always evaluated."""
    evaluate_every_steps: int | None = Field(default=None, ge=1)
    """Steps between evaluations; replaces ``evaluate_every``."""

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give either epochs or steps, not both (null takes one away)")
        if self.ema_warmup is not None and self.ema is None:
            raise ValueError("ema_warmup needs ema (null takes it away)")
        if self.momentum is not None and max(self.momentum.start or 0, self.momentum.end) >= 1:
            raise ValueError("momentum: start and end must be below 1")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Workers:
    """As many workers as the cluster has room for, within limits; the number changes when machines
    come and go.
    """

    min: int = Field(default=1, ge=1)
    max: int = Field(ge=1)

    def __post_init__(self) -> None:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max is {self.max}: max must not be less")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RuntimeConfig:
    """Where a run is stored and what it runs on."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """The run is at storage/name; the same name with the same config resumes it."""
    storage: str = "runs"
    """Path or URI."""
    workers: Annotated[int, Field(ge=1)] | Workers = 1
    """Training processes: a number, or ``{min: 1, max: 8}`` for as many as fit on Ray now. They
    share data.batch as evenly as it goes, so the batch, the order of samples and the gradients do
    not depend on their number."""
    grow_every_s: float = Field(default=300.0, gt=0)
    """With ``{min, max}``: seconds that a group of workers runs before it is restarted with
    more."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float = Field(default=1, gt=0, le=1)
    """Below 1 several runs (the trials of a search) share a GPU, each with one worker."""
    seed: int = 0
    deterministic: bool = False
    """Only deterministic algorithms: slower on a GPU; on CPU in float32 a run is repeated bit for
    bit."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 are automatic mixed precision."""
    compile: bool = False
    """torch.compile."""
    sync_bn: bool = False
    """Batch normalisation statistics over all workers."""
    load_from: str | None = None
    """Start from the weights of this checkpoint, run or weight file; what does not fit is
    reported."""
    checkpoint_every_steps: int | None = Field(default=None, ge=1)
    checkpoint_every_s: float | None = Field(default=300.0, gt=0)
    keep: int = Field(default=2, ge=1)
    """How many of the newest checkpoints stay, besides the best."""
    save_patience_s: float = Field(default=600.0, ge=0)
    """A checkpoint that cannot be written is retried during training; the last one for this many
    seconds before the run gives up."""
    best: str | None = None
    """The metric by which the best checkpoint is chosen, as HEAD/METRIC; by default the main metric
    of the first head. Where the method watches a figure of training it may be training/NAME, which
    is the default if no head is measured."""
    log_every_steps: int = Field(default=10, ge=1)
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online with an API key in the environment, offline without."""
    wandb_project: str = "mtl_ray"
    wandb_group: str | None = None
    """Runs of one group are shown together; a search puts its trials into one."""
    tensorboard: bool = False
    max_failures: int = Field(default=3, ge=0)
    """How often Ray restarts a failed group of workers without a new checkpoint in between."""
    ledger: str | None = None
    """A folder on a disk that all workers see. Each rank then writes a line a step: attempt, step
    and the keys of its samples."""

    def __post_init__(self) -> None:
        if self.gpus_per_worker < 1 and self.most_workers > 1:
            raise ValueError(
                "gpus_per_worker: workers of one run cannot share a GPU (NCCL); with a part of one "
                "set workers to 1"
            )

    @property
    def fewest_workers(self) -> int:
        """The least that the run starts with."""
        return self.workers if isinstance(self.workers, int) else self.workers.min

    @property
    def most_workers(self) -> int:
        """The most that the run can use."""
        return self.workers if isinstance(self.workers, int) else self.workers.max
