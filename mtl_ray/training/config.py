"""The ``schedule`` and ``runtime`` sections of a config: how long and how to optimise; where and on what to run."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT, DefaultType, Retired


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Optimizer:
    """The optimiser and its parameter groups."""

    type: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    """Not applied to biases and normalisation layers."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of sgd; the first beta of adamw."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each backbone stage learns at this factor of the rate of the stage above it."""
    backbone_lr: float = Field(default=1.0, ge=0)
    """Factor of the learning rate for the backbone."""
    scale_to_batch: int | None = Field(default=None, ge=1)
    """The batch that ``lr`` was chosen for: the rate is scaled by data.batch / this. Not scaled if absent."""


_OF_STEP = {
    "milestones": Retired([0.67, 0.92], "milestones are of a rate of type step"),
    "gamma": Retired(0.1, "gamma is of a rate of type step"),
}
_OF_POLY = {"power": Retired(0.9, "power is of a rate of type poly")}
_OF_BOTH = {"end": Retired(0.01, "end is of a rate of type poly or cosine")}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConstantRate:
    """The learning rate stays as it is after the warm-up."""

    type: Literal["constant"] = "constant"
    warmup: float = Field(default=0.03, ge=0)
    """Linear warm-up: a share of the run below 1, else a number of steps."""
    retired: ClassVar[Mapping[str, Retired]] = {**_OF_STEP, **_OF_POLY, **_OF_BOTH}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StepRate:
    """The learning rate falls at milestones."""

    type: Literal["step"] = "step"
    warmup: float = Field(default=0.03, ge=0)
    """Linear warm-up: a share of the run below 1, else a number of steps."""
    milestones: tuple[float, ...] = (0.67, 0.92)
    """Shares of the run after which the rate is multiplied by gamma."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    retired: ClassVar[Mapping[str, Retired]] = {**_OF_POLY, **_OF_BOTH}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PolyRate:
    """The learning rate falls with a power of what is left of the run."""

    type: Literal["poly"] = "poly"
    warmup: float = Field(default=0.03, ge=0)
    """Linear warm-up: a share of the run below 1, else a number of steps."""
    end: float = Field(default=0.01, ge=0, le=1)
    """Last rate, relative to the first."""
    power: float = Field(default=0.9, gt=0)
    retired: ClassVar[Mapping[str, Retired]] = _OF_STEP


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CosineRate:
    """The learning rate falls along half a cosine."""

    type: Literal["cosine"] = "cosine"
    warmup: float = Field(default=0.03, ge=0)
    """Linear warm-up: a share of the run below 1, else a number of steps."""
    end: float = Field(default=0.01, ge=0, le=1)
    """Last rate, relative to the first."""
    retired: ClassVar[Mapping[str, Retired]] = {**_OF_STEP, **_OF_POLY}


Rate = Annotated[ConstantRate | StepRate | PolyRate | CosineRate, Field(discriminator="type"), DefaultType("cosine")]
"""How the learning rate changes over the run."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScheduleConfig:
    """How long to train, and how."""

    epochs: float | None = Field(default=None, gt=0)
    """Visits of the whole training split; give this or ``steps``."""
    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps."""
    seconds: float | None = Field(default=None, gt=0)
    """Of training: the run is done after so many even if steps are left, and the learning rate follows the share of the time where
    that is the larger. Evaluations, checkpoints and the start do not count. How many steps that makes depends on the machine."""
    optimizer: Optimizer = Field(default_factory=Optimizer)
    rate: Rate = Field(default_factory=CosineRate)
    clip_grad_norm: float | None = Field(default=None, gt=0)
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches a step: data.batch is split into this many, and gradients are added up. Above 1 each goes forward twice, since
    the counts that losses are divided by must be known before the first backward."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, which is then what is evaluated and exported."""
    evaluate_every: float | None = Field(default=1.0, gt=0)
    """Epochs between evaluations; the end of the run is always evaluated."""
    evaluate_every_steps: int | None = Field(default=None, ge=1)
    """Steps between evaluations; takes the place of ``evaluate_every``."""

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give either epochs or steps, not both (null takes one away)")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Workers:
    """As many workers as the cluster has room for, within limits; the number changes when machines come and go."""

    min: int = Field(default=1, ge=1)
    max: int = Field(ge=1)

    def __post_init__(self) -> None:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max is {self.max}: max must not be less")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RuntimeConfig:
    """Where a run lies and on what it runs."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """The run lies at storage/name; the same name with the same config goes on where it stopped."""
    storage: str = "runs"
    """Path or URI."""
    workers: Annotated[int, Field(ge=1)] | Workers = 1
    """Training processes: a number, or ``{min: 1, max: 8}`` for as many as fit on Ray now. They share data.batch as evenly as it
    goes, so the batch, the order of samples and the gradients do not depend on their number."""
    grow_every_s: float = Field(default=300.0, gt=0)
    """With ``{min, max}``: so long a group of workers is left alone before it is stopped to make it larger."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float = Field(default=1, gt=0, le=1)
    """Below 1 several runs (the trials of a search) share a GPU, each with one worker."""
    seed: int = 0
    deterministic: bool = False
    """Only deterministic algorithms: slower on a GPU; on CPU in float32 a run is repeated bit for bit."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 are automatic mixed precision."""
    compile: bool = False
    """torch.compile."""
    sync_bn: bool = False
    """Batch normalisation statistics over all workers."""
    load_from: str | None = None
    """Start from the weights of this checkpoint, run or weight file; what does not fit is reported."""
    checkpoint_every_steps: int | None = Field(default=None, ge=1)
    checkpoint_every_s: float | None = Field(default=300.0, gt=0)
    keep: int = Field(default=2, ge=1)
    """How many of the newest checkpoints stay, besides the best."""
    save_patience_s: float = Field(default=600.0, ge=0)
    """A checkpoint that cannot be written is tried again while training goes on; the last one so long before the run gives up."""
    best: str | None = None
    """The metric by which the best checkpoint is chosen, as HEAD/METRIC; by default the first head's main metric."""
    log_every_steps: int = Field(default=10, ge=1)
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online with an API key in the environment, offline without."""
    wandb_project: str = "mtl_ray"
    wandb_group: str | None = None
    """Runs of one group are shown together; a search puts its trials into one."""
    tensorboard: bool = False
    max_failures: int = Field(default=3, ge=0)
    """How often Ray starts a failed group of workers again without any new checkpoint in between."""
    ledger: str | None = None
    """A folder on a disk that all workers see. Each rank then writes a line a step: attempt, step and the keys of its samples."""

    def __post_init__(self) -> None:
        if self.gpus_per_worker < 1 and self.most_workers > 1:
            raise ValueError("gpus_per_worker: workers of one run cannot share a GPU (NCCL); with a part of one set workers to 1")

    @property
    def fewest_workers(self) -> int:
        """The least that the run starts with."""
        return self.workers if isinstance(self.workers, int) else self.workers.min

    @property
    def most_workers(self) -> int:
        """The most that the run can use."""
        return self.workers if isinstance(self.workers, int) else self.workers.max
