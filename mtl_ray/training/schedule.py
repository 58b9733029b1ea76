"""What changes from step to step (learning rate, weight decay, momentum), and when a run evaluates,
saves and ends.
"""

import math
import time

from mtl_ray.training.config import (
    ConstantLr,
    CosineLr,
    CosineRamp,
    LrSchedule,
    PolyLr,
    Ramp,
    RuntimeConfig,
    ScheduleConfig,
    StepLr,
)


def lr_factor(step: int, steps: int, schedule: LrSchedule) -> float:
    """What each group's ``base_lr`` is multiplied by at one step.

    Args:
        step: from 0.
        steps: of the whole run.
        schedule: how it changes. cosine: Loshchilov and Hutter 2017 (SGDR, without restarts); poly:
            as in DeepLab (Chen et al. 2017).

    Returns:
        Above 0, at most 1. The linear warm-up is a further factor.
    """
    return _warmup(step, steps, schedule) * _curve(step / max(1, steps), schedule)


def _warmup(step: int, steps: int, schedule: LrSchedule) -> float:
    length = schedule.warmup * steps if schedule.warmup < 1 else schedule.warmup
    return min(1.0, (step + 1) / (length + 1))


def _curve(done: float, schedule: LrSchedule) -> float:
    match schedule:
        case ConstantLr():
            return 1.0
        case StepLr():
            return float(
                schedule.gamma ** sum(done >= milestone for milestone in schedule.milestones)
            )
        case PolyLr():
            return float(schedule.end + (1 - schedule.end) * (1 - done) ** schedule.power)
        case CosineLr():
            return schedule.end + (1 - schedule.end) * (1 + math.cos(math.pi * done)) / 2


def ramp(step: int, steps: int, config: Ramp, own: float) -> float:
    """A value of the optimizer for one step.

    Args:
        step: from 0.
        steps: of the whole run.
        config: how it changes; cosine as in DINO (Caron et al. 2021,
            https://arxiv.org/abs/2104.14294, section 3).
        own: the value of the optimizer's config, where the ramp starts unless ``config.start`` is
            given.
    """
    start = own if config.start is None else config.start
    done = min(1.0, step / max(1, steps) / config.until)
    share = (1 - math.cos(math.pi * done)) / 2 if isinstance(config, CosineRamp) else done
    return start + (config.end - start) * share


def check_length(schedule: ScheduleConfig) -> None:
    """Checks that a schedule gives the length of a run.

    Raises:
        ValueError: if it gives neither or both of ``epochs`` and ``steps``.
    """
    if (schedule.epochs is None) == (schedule.steps is None):
        raise ValueError(
            "schedule needs either epochs or steps"
            + (", not both (null takes one away)" if schedule.steps else "")
        )


class RunSchedule:
    """How many steps a run has, and after which of them it evaluates and saves.

    Attributes:
        steps: of the whole run; fewer once ``schedule.seconds`` are used up.
        closing_step: the first step, counted from 0, without mosaic, mixup and copy-paste
            (``data.close_mosaic``); None if all have them.

    Raises:
        ValueError: see ``check_length``.
    """

    def __init__(
        self,
        schedule: ScheduleConfig,
        runtime: RuntimeConfig,
        *,
        batch: int,
        samples_per_epoch: int,
        close_mosaic: float = 0.0,
    ) -> None:
        check_length(schedule)
        self._steps_per_epoch = samples_per_epoch / batch
        self.steps = (
            schedule.steps or max(1, math.ceil(schedule.epochs * self._steps_per_epoch - 1e-9))
            if schedule.epochs
            else schedule.steps or 1
        )
        last = close_mosaic * (self.steps if close_mosaic < 1 else self._steps_per_epoch)
        self.closing_step = max(0, math.ceil(self.steps - last - 1e-9)) if close_mosaic else None
        self._seconds = schedule.seconds
        every = schedule.evaluate_every
        self._evaluate_every = schedule.evaluate_every_steps or (
            every * self._steps_per_epoch if every else math.inf
        )
        self._save_every = runtime.checkpoint_every_steps
        self._save_every_s = runtime.checkpoint_every_s
        self._saved_at = time.monotonic()

    def epoch(self, step: int) -> float:
        """Visits of the training split after ``step`` steps."""
        return step / self._steps_per_epoch

    def place(self, step: int, trained_s: float) -> int:
        """The step that the learning rate follows: by count, or by the share of
        ``schedule.seconds`` if that is larger.
        """
        if self._seconds is None:
            return step
        return min(max(step, int(trained_s / self._seconds * self.steps)), self.steps - 1)

    def closes_by_time(self, step: int, trained_s: float) -> bool:
        """True if mosaic, mixup and copy-paste are due to end after ``step`` steps because of the
        share of ``schedule.seconds``, which no count of steps says beforehand.
        """
        return (
            self._seconds is not None
            and self.closing_step is not None
            and self.place(step, trained_s) >= self.closing_step
        )

    def check_time(self, step: int, trained_s: float) -> None:
        """Called after a step: if the time is used up, that was the last one."""
        if self._seconds is not None and trained_s >= self._seconds:
            self.steps = step

    def evaluates(self, step: int) -> bool:
        """True if the model is measured after ``step`` steps (from 1)."""
        return step == self.steps or math.floor(step / self._evaluate_every + 1e-9) > math.floor(
            (step - 1) / self._evaluate_every + 1e-9
        )

    def saves(self, step: int, *, busy: bool) -> bool:
        """True if a checkpoint is due after ``step`` steps, besides those of evaluations.

        By count, or by the clock. The clock waits while the last checkpoint is still being written
        (``busy``), so training does not.
        """
        by_count = self._save_every is not None and step % self._save_every == 0
        by_clock = (
            self._save_every_s is not None
            and time.monotonic() - self._saved_at >= self._save_every_s
        )
        return by_count or (by_clock and not busy)

    def saved(self) -> None:
        """Called after a checkpoint: the clock starts again."""
        self._saved_at = time.monotonic()
