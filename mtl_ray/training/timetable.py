"""When a run ends, and after which steps it is measured and saved."""

import math
import time

from mtl_ray.training.config import RuntimeConfig, ScheduleConfig


def check_length(schedule: ScheduleConfig) -> None:
    """Looks whether a schedule says how long a run is.

    Raises:
        ValueError: if it says neither or both of ``epochs`` and ``steps``.
    """
    if (schedule.epochs is None) == (schedule.steps is None):
        raise ValueError("schedule needs either epochs or steps" + (", not both (null takes one away)" if schedule.steps else ""))


class Timetable:
    """The steps of a run.

    Attributes:
        steps: of the whole run; fewer once its time is used up.

    Raises:
        ValueError: see ``check_length``.
    """

    def __init__(self, schedule: ScheduleConfig, runtime: RuntimeConfig, *, batch: int, samples_per_epoch: int) -> None:
        check_length(schedule)
        self._steps_per_epoch = samples_per_epoch / batch
        self.steps = (
            schedule.steps or max(1, math.ceil(schedule.epochs * self._steps_per_epoch - 1e-9)) if schedule.epochs else schedule.steps or 1
        )
        self._seconds = schedule.seconds
        every = schedule.evaluate_every
        self._evaluate_every = schedule.evaluate_every_steps or (every * self._steps_per_epoch if every else math.inf)
        self._save_every = runtime.checkpoint_every_steps
        self._save_every_s = runtime.checkpoint_every_s
        self._saved_at = time.monotonic()

    def epoch(self, step: int) -> float:
        """Visits of the training split after ``step`` steps."""
        return step / self._steps_per_epoch

    def place(self, step: int, trained_s: float) -> int:
        """Where in its steps the run is for the learning rate: by count, or by the share of its time if that is the larger."""
        if self._seconds is None:
            return step
        return min(max(step, int(trained_s / self._seconds * self.steps)), self.steps - 1)

    def look_at_clock(self, step: int, trained_s: float) -> None:
        """After a step: if the time is used up, that was the last one."""
        if self._seconds is not None and trained_s >= self._seconds:
            self.steps = step

    def evaluates(self, step: int) -> bool:
        """True if the model is measured after ``step`` steps (from 1)."""
        return step == self.steps or math.floor(step / self._evaluate_every + 1e-9) > math.floor((step - 1) / self._evaluate_every + 1e-9)

    def saves(self, step: int, *, busy: bool) -> bool:
        """True if a checkpoint is due after ``step`` steps, besides those of evaluations.

        By count, or by the clock; that one waits while the checkpoint before is still being written (``busy``), so that training does not.
        """
        by_count = self._save_every is not None and step % self._save_every == 0
        by_clock = self._save_every_s is not None and time.monotonic() - self._saved_at >= self._save_every_s
        return by_count or (by_clock and not busy)

    def saved(self) -> None:
        """A checkpoint was made: the clock starts again."""
        self._saved_at = time.monotonic()
