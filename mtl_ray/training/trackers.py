"""Where else a run's curves, images and artifacts go: what a tracker is, and TensorBoard."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.geometry.panels import pixels
from mtl_ray.inference.checkpoint import find_checkpoint


class EvaluationFigures(NamedTuple):
    """What can be seen of an evaluation.

    Attributes:
        images: ground truth and prediction side by side: name and (H, W, 3) RGB of each sample.
        charts: PNG files by HEAD/CHART: ``boxes/confusion``, ``boxes/pr_curves``.
    """

    images: Sequence[tuple[str, NDArray[np.uint8]]]
    charts: Mapping[str, bytes]


class TrackerFolder:
    """A local folder for a tracker that writes local files; its files are at ``uri`` in the end,
    which may be in a bucket.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._temporary = tempfile.TemporaryDirectory() if storage.is_remote(uri) else None
        self.path = Path(self._temporary.name if self._temporary else storage.absolute(uri))
        self.path.mkdir(parents=True, exist_ok=True)

    @property
    def stays(self) -> bool:
        """True if the files stay where they were written, False if they are uploaded to a
        bucket.
        """
        return self._temporary is None

    def close(self) -> None:
        """Uploads the files if ``uri`` is in a bucket."""
        if self._temporary is None:
            return
        for file in self.path.rglob("*"):
            if file.is_file() and not file.is_symlink():
                storage.upload(
                    file, storage.join(self._uri, file.relative_to(self.path).as_posix())
                )
        self._temporary.cleanup()


class Tracker(Protocol):
    """Keeps the curves of a run."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step; steps never fall."""
        ...

    def evaluation(self, step: int, shown: EvaluationFigures) -> None:
        """Images and charts of the evaluation after a step."""
        ...

    def artifact(self, uri: str, kind: str, aliases: Sequence[str]) -> None:
        """A checkpoint or bundle; ``aliases`` are what it is called: best, latest."""
        ...

    def close(self) -> None:
        """The last call."""
        ...


def checkpoints_of(run_uri: str) -> list[tuple[str, tuple[str, ...]]]:
    """The best and the last checkpoint of a run with their aliases; one if they are the same."""
    best, last = find_checkpoint(run_uri, "best"), find_checkpoint(run_uri, "last")
    return (
        [(best, ("best", "latest"))] if best == last else [(best, ("best",)), (last, ("latest",))]
    )


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

    def evaluation(self, step: int, shown: EvaluationFigures) -> None:
        """See ``Tracker``."""
        for name, image in shown.images:
            self._writer.add_image(f"predictions/{name}", image, step, dataformats="HWC")
        for name, chart in shown.charts.items():
            self._writer.add_image(name, pixels(chart), step, dataformats="HWC")

    def artifact(self, uri: str, kind: str, aliases: Sequence[str]) -> None:
        """See ``Tracker``; where it lies is all that is kept."""
        self._writer.add_text(f"{' and '.join(aliases)} {kind}", uri)

    def close(self) -> None:
        """See ``Tracker``."""
        self._writer.close()
        self._folder.close()
