"""Drawings beside that on the input itself, such as in the images of cameras around a lidar."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

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
