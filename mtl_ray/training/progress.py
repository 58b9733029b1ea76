"""The progress of a run, and the bar that shows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtl_ray.terminal import progress_bar


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """The progress of a run; rank 0 reports it at every logged step and after every evaluation.

    Attributes:
        step: optimiser steps done.
        steps: of the whole run.
        first: the step from which this attempt resumed.
        epoch: visits of the training split so far.
        images_per_s: samples of all ranks in a second of training, over the last logged steps.
        loss: mean over the last logged steps.
        metrics: of the newest evaluation, HEAD/METRIC; empty before the first.
        measured: the step after which they were measured; 0 before the first.
    """

    step: int
    steps: int
    first: int
    epoch: float
    images_per_s: float
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    measured: int = 0


class ProgressBar:
    """One bar on stderr, drawn once the first progress is known."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Any = None

    def show(self, progress: Progress) -> None:
        """Moves the bar."""
        if self._bar is None:
            self._bar = progress_bar(
                total=progress.steps,
                initial=progress.first,
                desc=self._name,
                unit="step",
                mininterval=0.1,
                leave=True,
                log_from_s=0.0,
            )
        figures = {"loss": f"{progress.loss:.4g}", "samples/s": f"{progress.images_per_s:.4g}"}
        figures |= {name: f"{value:.3f}" for name, value in list(progress.metrics.items())[:1]}
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update(progress.step - self._bar.n)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()
