"""Image labels written on their image."""

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.appearance import colours_of
from mtl_ray.geometry.drawing import Drawing
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.classification.decode import LabelScores

_MOST = 5
"""Most labels that are written on an image."""


def draw_labels(
    image: NDArray[np.uint8], sample: Sample, vocabulary: Vocabulary
) -> NDArray[np.uint8]:
    """The annotated labels.

    Args:
        image: (H, W, 3) uint8 RGB, the sample's image as shown.
        sample: without labels, the image stays as it is.
        vocabulary: names and colours.

    Returns:
        uint8 RGB of the image's size times a whole number (small images are enlarged).
    """
    drawing = Drawing(image)
    if sample.labels is not None:
        names, colours = _looks(vocabulary)
        drawing.caption([(names[int(index)], colours[int(index)]) for index in sample.labels])
    return drawing.pixels


def draw_label_scores(
    image: NDArray[np.uint8],
    prediction: LabelScores,
    vocabulary: Vocabulary,
    score_threshold: float = 0.3,
) -> NDArray[np.uint8]:
    """The labels with a score of at least ``score_threshold``, best first. If an image has exactly
    one label, the best is always shown.
    """
    names, colours = _looks(vocabulary)
    best = np.argsort(-prediction.scores, kind="stable")[:_MOST]
    shown = [int(index) for index in best if prediction.scores[index] >= score_threshold]
    if prediction.exclusive and not shown:
        shown = [int(best[0])]
    drawing = Drawing(image)
    drawing.caption(
        [(f"{names[index]} {prediction.scores[index]:.2f}", colours[index]) for index in shown]
    )
    return drawing.pixels


def _looks(vocabulary: Vocabulary) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    names = vocabulary.classes["labels"]
    return names, colours_of(len(names), vocabulary.colours.get("labels", ()))
