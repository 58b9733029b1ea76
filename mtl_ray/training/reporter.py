"""Everything that a run reports: scalars.jsonl, plots, images, trackers, progress.

Rank 0 has one.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2

from mtl_ray import storage
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.tasks.charts import chart_file
from mtl_ray.training.checkpoint import TrainState
from mtl_ray.training.progress import Progress
from mtl_ray.training.scalars import Scalars
from mtl_ray.training.trackers import EvaluationFigures, TensorBoard, Tracker, checkpoints_of
from mtl_ray.training.wandb_tracker import Wandb, tracked_numbers, wandb_mode

DRAW_EVERY_S = 60.0
_log = logging.getLogger(__name__)


class Reporter:
    """Writes what a run measures.

    Args:
        config: of the run.
        uri: of its folder.
        state: from which this attempt resumes; rows of later steps, from an earlier attempt, are
            dropped.
        steps: of the whole run.
        on_progress: called after every logged step and evaluation.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        uri: str,
        state: TrainState,
        steps: int,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._uri, self._on_progress = uri, on_progress
        self._batch = config.data.batch
        self._tasks = {name: head.task for name, head in config.model.heads.items()}
        self._scalars = Scalars(storage.join(uri, "scalars.jsonl"), state.step)
        self._trackers: list[Tracker] = open_trackers(
            config, uri, state.run_id, self._scalars.rows, state.step
        )
        self._progress = Progress(
            step=state.step, steps=steps, first=state.step, epoch=0.0, images_per_s=0.0, loss=0.0
        )
        self._drawn_at, self._drawn_rows = time.monotonic(), 0

    def training(self, step: int, epoch: float, means: Mapping[str, float]) -> None:
        """Means over the steps up to this one: losses, lr, time, data_time."""
        row: dict[str, Any] = {
            "mode": "train",
            "epoch": math.ceil(epoch),
            "iter": step,
            "step": step,
            **means,
        }
        row["images_per_s"] = self._batch / means["time"]
        self._scalars.add(row)
        self._track(row)
        self._tell(
            replace(
                self._progress,
                step=step,
                epoch=epoch,
                images_per_s=row["images_per_s"],
                loss=means["loss"],
            )
        )

    def evaluation(
        self,
        step: int,
        epoch: float,
        metrics: Mapping[str, float | None],
        seconds: float,
        show: Callable[[], EvaluationFigures],
    ) -> None:
        """The metrics after a step, the seconds that they took, and a function that draws sample
        predictions and charts.

        It is called at every evaluation if there are trackers; else, as for the curves, at the end
        and at most once a minute.
        """
        row: dict[str, Any] = {
            "mode": "val",
            "epoch": math.ceil(epoch),
            "step": step,
            **metrics,
            "time": seconds,
        }
        self._scalars.add(row)
        self._track(row)
        known = {name: value for name, value in metrics.items() if value is not None}
        self._tell(replace(self._progress, step=step, epoch=epoch, metrics=known, measured=step))
        due = step == self._progress.steps or time.monotonic() - self._drawn_at > DRAW_EVERY_S
        if due or self._trackers:
            shown = show()
            self._each(lambda tracker: tracker.evaluation(step, shown))
            self._try(lambda: self._draw(shown))
        if due:
            self._try(self._plot)

    def _try(self, draw: Callable[[], None]) -> None:
        """Images that cannot be written do not end the run."""
        try:
            draw()
        except OSError as error:
            _log.warning("images cannot be written at the moment, training goes on: %s", error)

    def _draw(self, shown: EvaluationFigures) -> None:
        for number, (_, image) in enumerate(shown.images):
            _, data = cv2.imencode(".png", image[..., ::-1])
            storage.write(
                storage.join(self._uri, "pictures", f"val-{number:02d}.png"), data.tobytes()
            )
        for name, chart in shown.charts.items():
            storage.write(storage.join(self._uri, "plots", chart_file(name)), chart)

    def _plot(self) -> None:
        from mtl_ray.training.plots import (
            draw_training_curves,  # matplotlib takes a second to import
        )

        draw_training_curves(self._scalars.rows, storage.join(self._uri, "plots"), self._tasks)
        self._drawn_at, self._drawn_rows = time.monotonic(), len(self._scalars.rows)

    def _track(self, row: Mapping[str, Any]) -> None:
        self._each(lambda tracker: tracker.scalars(row["step"], tracked_numbers(row)))

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        """A tracker that fails does not end the run; it is not used again."""
        for tracker in list(self._trackers):
            try:
                tell(tracker)
            except OSError as error:
                self._trackers.remove(tracker)
                name, what = type(tracker).__name__, f"{type(error).__name__}: {error}"
                _log.warning(
                    "%s is left out from now on and training goes on (%s); jobs.wandb_sync sends "
                    "what W&B misses",
                    name,
                    what,
                )

    def _tell(self, progress: Progress) -> None:
        self._progress = progress
        self._on_progress(progress)

    def flush(self) -> None:
        """Called before a checkpoint is made: the curves up to it are then on the storage."""
        self._scalars.flush()

    def close(self, best: str | None) -> None:
        """The last call; ``best`` is the best checkpoint of a finished run.

        A stopped run does not wait for figures.
        """
        try:
            self._scalars.flush()
            if best is not None:
                if len(self._scalars.rows) > self._drawn_rows:
                    self._try(self._plot)
                for uri, aliases in checkpoints_of(self._uri) if self._trackers else ():
                    self._each(
                        lambda tracker, uri=uri, aliases=aliases: tracker.artifact(  # type: ignore[misc]
                            uri, "checkpoint", aliases
                        )
                    )
        finally:
            self._each(lambda tracker: tracker.close())


def open_trackers(
    config: ExperimentConfig, uri: str, run_id: str, rows: Sequence[Mapping[str, Any]], step: int
) -> list[Tracker]:
    """The trackers that a config asks for.

    Args:
        config: of the run.
        uri: of its folder.
        run_id: the same for every attempt of a run.
        rows: of scalars.jsonl, from earlier attempts; trackers get those that they do not have.
        step: from which this attempt goes on.
    """
    trackers: list[Tracker] = []
    mode = wandb_mode(config.runtime.wandb)
    if mode != "disabled":
        tracker = Wandb(config, uri, run_id, mode)
        tracker.catch_up(rows)
        trackers.append(tracker)
    if config.runtime.tensorboard:
        trackers.append(TensorBoard(uri, step))
    return trackers
