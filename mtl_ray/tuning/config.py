"""The ``tune`` section of a config: what to search, how, and by which metric."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT

When = Mapping[str, Any]
"""Paths of other entries of the space and the value (or the list of values) that each must have;
otherwise the entry is not searched."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Uniform:
    """A real number with a uniform distribution."""

    type: Literal["uniform"] = "uniform"
    low: float
    high: float
    points: int | None = Field(default=None, ge=2)
    """Number of values in a grid, both ends included."""
    when: When = Field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_ends(self.low, self.high)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LogUniform:
    """A positive number whose logarithm has a uniform distribution."""

    type: Literal["loguniform"] = "loguniform"
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    points: int | None = Field(default=None, ge=2)
    """Number of values in a grid, both ends included."""
    when: When = Field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_ends(self.low, self.high)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Int:
    """An integer from low to high, both included."""

    type: Literal["int"] = "int"
    low: int
    high: int
    step: int = Field(default=1, ge=1)
    """low, low + step, ..."""
    when: When = Field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_ends(self.low, self.high)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Choice:
    """One of several values of any type."""

    type: Literal["choice"] = "choice"
    values: (
        Annotated[tuple[Any, ...], Field(min_length=1)]
        | Annotated[dict[str, Any], Field(min_length=1)]
    )
    """A list; or a mapping of names to values, if the values are long: figures, tables and ``when``
    then use the names."""
    when: When = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Anchors:
    """Anchors of a head, fitted to the boxes of the training split on the canvas of the trial
    (see ``anchors``).
    """

    type: Literal["anchors"] = "anchors"
    low: int = Field(default=3, ge=1)
    """Fewest anchors for each level of the head, on average: an anchor belongs to the level whose
    stride fits its size, and a level that gets none is left out of the trial's head."""
    high: int = Field(default=3, ge=1)
    """Most anchors for each level, likewise."""
    when: When = Field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_ends(self.low, self.high)


Distribution = Annotated[Uniform | LogUniform | Int | Choice | Anchors, Field(discriminator="type")]


COSTS = ("latency_ms", "flops", "parameters")
"""Figures of a network that are no metrics; less of each is better."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Objective:
    """An objective by which trials are compared."""

    metric: str
    """HEAD/METRIC of the last evaluation of the trial; or ``latency_ms`` (one canvas through the
    network on one CPU thread, the median), ``flops`` (of one canvas), ``parameters``."""
    mode: Literal["max", "min"] = "max"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TuneConfig:
    """A search: many runs of one config that differ in the parameters of ``space``."""

    space: dict[str, Distribution] = Field(min_length=1)
    """By path, as on the command line: ``schedule.optimizer.lr: {type: loguniform, low: 1e-4, high:
    1e-2}``."""
    metric: str | None = None
    """The metric by which trials are compared: HEAD/METRIC of their last evaluation."""
    mode: Literal["max", "min"] = "max"
    objectives: tuple[Objective, ...] = ()
    """Instead of ``metric`` and ``mode``: several objectives. The result is the Pareto front: the
    trials that no other beats in all."""
    trials: int = Field(default=20, ge=1)
    """Number of trials, including those that fail or are stopped early; a grid has as many as it
    has points."""
    concurrent: int | None = Field(default=None, ge=1)
    """Trials at a time; by default as many as the cluster has room for when the search starts. Set
    it if an autoscaler adds machines: the search cannot know how far the cluster can grow."""
    seconds: float | None = Field(default=None, gt=0)
    """Seconds of training for each trial, instead of the length of the schedule
    (``schedule.seconds``)."""
    sampler: Literal["tpe", "cmaes", "random", "grid"] = "tpe"
    """tpe: multivariate, groups of conditional entries, constant liar (Bergstra et al. 2011;
    Falkner et al. 2018). cmaes: Hansen 2016, over the numbers without conditions; the rest at
    random."""
    startup: int = Field(default=10, ge=0)
    """tpe and cmaes: number of random trials at the start."""
    scheduler: Literal["asha", "median", "none"] = "none"
    """Which trials are stopped early. asha: at ``grace``, ``grace * reduction``, ... epochs those
    that are not in the best 1/``reduction`` of all that reached this epoch (Li et al. 2020).
    median: those whose best value is below the median of the means of the others up to this epoch
    (Golovin et al. 2017)."""
    grace: float = Field(default=1.0, gt=0)
    """Epochs before which no trial is stopped."""
    reduction: float = Field(default=3.0, gt=1)
    """See asha."""
    seed: int = 0
    """The seed of the sampler; the seed of each training is runtime.seed."""
    max_failures: int = Field(default=3, ge=0)
    """How often a trial whose process or machine was lost is resumed from its checkpoint before it
    counts as failed."""

    def __post_init__(self) -> None:
        if (self.metric is None) == (not self.objectives):
            raise ValueError("set either metric or objectives, by which trials are compared")
        if len(self.objectives) > 1 and self.scheduler != "none":
            raise ValueError(
                f"scheduler: {self.scheduler} compares trials by one number; with several "
                "objectives it must be none"
            )
        if len(self.objectives) > 1 and self.sampler == "cmaes":
            raise ValueError("sampler: cmaes allows only one objective; use tpe")
        in_order(self.space)
        if self.sampler == "grid":
            _check_grid(self.space)

    @property
    def goals(self) -> tuple[Objective, ...]:
        """The objectives, from ``objectives`` or from ``metric`` and ``mode``."""
        return (
            self.objectives
            if self.metric is None
            else (Objective(metric=self.metric, mode=self.mode),)
        )


def _check_ends(low: float, high: float) -> None:
    if low > high:
        raise ValueError(f"low is {low} and high is {high}: high must not be less")


def in_order(space: Mapping[str, Distribution]) -> list[str]:
    """The paths of a space, sorted so that each comes after those that it depends on.

    Otherwise in the given order.

    Raises:
        ValueError: if an entry depends on what is not in the space, or on itself.
    """
    found: list[str] = []
    left = list(space)
    while left:
        ready = next(
            (path for path in left if all(wanted in found for wanted in space[path].when)), None
        )
        if ready is None:
            strange = {
                path: [wanted for wanted in space[path].when if wanted not in space]
                for path in left
            }
            path = next((path for path, wanted in strange.items() if wanted), left[0])
            why = f"{strange[path][0]}, which is not in the space" if strange[path] else "itself"
            raise ValueError(f"space: {path} depends on {why}")
        found.append(ready)
        left.remove(ready)
    return found


def _check_grid(space: Mapping[str, Distribution]) -> None:
    for path, entry in space.items():
        if isinstance(entry, Uniform | LogUniform) and entry.points is None:
            raise ValueError(f"space: {path} needs points, the number of its values in a grid")
