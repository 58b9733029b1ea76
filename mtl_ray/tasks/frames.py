"""What some tasks give beside what ``Task`` asks for: drawings in the images of cameras around a
lidar, and the results files of benchmarks.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mtl_ray.samples import Sample, Vocabulary

DrawnView = tuple[str, NDArray[np.uint8]]
"""A title, and an image (H, W, 3) uint8 RGB."""


@runtime_checkable
class ViewsTask(Protocol):
    """A task that draws in further images of a sample."""

    def draw_views(
        self, sample: Sample, vocabulary: Vocabulary, prediction: Any, score_threshold: float
    ) -> Sequence[DrawnView]:
        """The images of a sample with a prediction, or if that is None with its annotations."""
        ...


def drawn_views(
    task: object,
    sample: Sample,
    vocabulary: Vocabulary,
    prediction: Any = None,
    score_threshold: float = 0.3,
) -> Sequence[DrawnView]:
    """See ``ViewsTask``; none of a task that has no such images."""
    if not isinstance(task, ViewsTask):
        return ()
    return task.draw_views(sample, vocabulary, prediction, score_threshold)


ResultsForm = Literal["kitti", "nuscenes"]
"""kitti: a file of 16 columns for each frame. nuscenes: one JSON file."""
RESULTS_FORMS: tuple[ResultsForm, ...] = get_args(ResultsForm)


class ResultsWriter(Protocol):
    """Writes predictions as a benchmark reads them."""

    def write(self, sample: Sample, prediction: Any) -> None:
        """Adds the prediction on a sample.

        Raises:
            ValueError: if the sample lacks what the form needs.
        """
        ...

    def finish(self) -> str:
        """Writes what is left; the URI of the results."""
        ...


@runtime_checkable
class ResultsTask(Protocol):
    """A task whose predictions have a results file."""

    def results_writer(
        self, form: ResultsForm, uri: str, vocabulary: Vocabulary, score_threshold: float
    ) -> ResultsWriter:
        """A writer to the folder at a URI; objects with a lower score are left out."""
        ...


def results_task(task: object) -> ResultsTask | None:
    """The task if its predictions have a results file."""
    return task if isinstance(task, ResultsTask) else None
