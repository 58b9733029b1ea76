"""What a task or a metric may give beside what ``Task`` and ``Metric`` ask for.

Each is a protocol that an object follows or not; the code that uses it asks with ``isinstance``.
They are notes on what counts, a choice of figures for people, windows of a large image, variants of
one image, images of cameras, and results files of benchmarks.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.task import HeadKind


@runtime_checkable
class NotingMetric(Protocol):
    """A metric with notes on what its figures count."""

    def notes(self) -> Sequence[str]:
        """A sentence each, such as how many objects count, and why the others do not."""
        ...


@runtime_checkable
class CountingTask(Protocol):
    """A task whose ``NotingMetric`` can note which objects count before a network has run. For
    that, the metric is updated with this prediction for each sample.
    """

    def nothing_found(self) -> Any:
        """A prediction without any object."""
        ...


@runtime_checkable
class Brief(Protocol):
    """A task or a metric of which people are shown only some figures: KITTI's metric has 180 of
    them; a terminal and the curves of a run have a dozen, and the files have all.
    """

    def is_brief(self, entry: str) -> bool:
        """Whether an entry of ``Metric.result`` is shown."""
        ...


def brief(owners: Mapping[str, object], names: Iterable[str]) -> list[str]:
    """Those of some figures that are shown.

    Args:
        owners: the task or the metric of each head.
        names: HEAD/ENTRY; others are shown.
    """

    def shown(name: str) -> bool:
        head, _, entry = name.partition("/")
        owner = owners.get(head)
        return not isinstance(owner, Brief) or owner.is_brief(entry)

    return [name for name in names if shown(name)]


@runtime_checkable
class WindowTask(Protocol):
    """A task with a class for each pixel. Its heads predict ``logits`` float32 (B, C, H, W) where
    ``Context.logits`` is set.
    """

    def of_windows(self, classes: NDArray[np.uint8]) -> Any:
        """The prediction of an image.

        Args:
            classes: (height, width) of the image, the best class of each pixel.
        """
        ...


class FusionRule(Protocol):
    """How predictions are fused."""

    @property
    def fuse(self) -> Literal["wbf", "nms"]:
        """Weighted boxes fusion, or suppression of all boxes but the best."""
        ...

    @property
    def iou(self) -> float | None:
        """Boxes of one class that overlap by more are the same object; None for what fits the
        head.
        """
        ...


@runtime_checkable
class FusingTask(Protocol):
    """A task whose predictions have scores."""

    def mirrored(self, prediction: Any, size: Mapping[str, int], vocabulary: Vocabulary) -> Any:
        """The prediction on the image, given that on the image mirrored from left to right.

        Args:
            prediction: on the mirrored image.
            size: of the image, as ``Input.size`` gives it.
            vocabulary: of the head.
        """
        ...

    def fused(self, predictions: Sequence[Any], rule: FusionRule, head: HeadKind) -> Any:
        """One prediction of those of ``head`` on several variants of an image, all in pixels of the
        image.
        """
        ...


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
