"""Where else a run's curves, pictures and artifacts go: Weights & Biases and TensorBoard."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mtl_ray import storage
from mtl_ray.experiment import ExperimentConfig
from mtl_ray.geometry.pictures import pixels
from mtl_ray.inference.checkpoint import find_checkpoint
from mtl_ray.training.shown import Shown
from mtl_ray.training.tracker_folder import TrackerFolder
from mtl_ray.training.wandb_tracker import Wandb, wandb_mode

Rows = Sequence[Mapping[str, Any]]
"""Of scalars.jsonl."""


class Tracker(Protocol):
    """Somebody who keeps the curves of a run."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step; steps never fall."""
        ...

    def evaluation(self, step: int, shown: Shown) -> None:
        """What is to be seen of the evaluation after a step."""
        ...

    def artifact(self, uri: str, kind: str, aliases: Sequence[str]) -> None:
        """A checkpoint or bundle; ``aliases`` are what it is called: best, latest."""
        ...

    def close(self) -> None:
        """The last call."""
        ...


def open_trackers(config: ExperimentConfig, uri: str, run_id: str, rows: Rows, step: int) -> list[Tracker]:
    """The trackers that a config asks for.

    Args:
        config: of the run.
        uri: of its folder.
        run_id: the same for every attempt of a run.
        rows: what earlier attempts logged; trackers are sent what they do not have of it.
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


def checkpoints_of(run_uri: str) -> list[tuple[str, tuple[str, ...]]]:
    """The best and the last checkpoint of a run with their aliases; one if they are the same."""
    best, last = find_checkpoint(run_uri, "best"), find_checkpoint(run_uri, "last")
    return [(best, ("best", "latest"))] if best == last else [(best, ("best",)), (last, ("latest",))]


class TensorBoard:
    """Event files in ``tensorboard/`` of the run's folder."""

    def __init__(self, uri: str, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = TrackerFolder(storage.join(uri, "tensorboard"))
        self._writer: Any = SummaryWriter(str(self._folder.path), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def evaluation(self, step: int, shown: Shown) -> None:
        """See ``Tracker``."""
        for name, image in shown.pictures:
            self._writer.add_image(f"predictions/{name}", image, step, dataformats="HWC")
        for name, picture in shown.charts.items():
            self._writer.add_image(name, pixels(picture), step, dataformats="HWC")

    def artifact(self, uri: str, kind: str, aliases: Sequence[str]) -> None:
        """See ``Tracker``; where it lies is all that is kept."""
        self._writer.add_text(f"{' and '.join(aliases)} {kind}", uri)

    def close(self) -> None:
        """See ``Tracker``."""
        self._writer.close()
        self._folder.close()
