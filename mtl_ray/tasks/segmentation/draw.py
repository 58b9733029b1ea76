"""Class maps drawn on their image."""

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.appearance import colours_of
from mtl_ray.geometry.drawing import Drawing
from mtl_ray.inputs.decode import decode_semantic
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.segmentation.decode import SemanticMap


def draw_semantic(
    image: NDArray[np.uint8], sample: Sample, vocabulary: Vocabulary
) -> NDArray[np.uint8]:
    """The annotated map: each class in its colour, pixels without a class are dark.

    Args:
        image: (H, W, 3) uint8 RGB, the sample's image as shown.
        sample: without a semantic map, the image stays as it is.
        vocabulary: names and colours.

    Returns:
        uint8 RGB of the image's size times a whole number (small images are enlarged).
    """
    if sample.semantic is None:
        return Drawing(image).pixels
    return _drawn(image, decode_semantic(sample.semantic), vocabulary)


def draw_class_map(
    image: NDArray[np.uint8],
    prediction: SemanticMap,
    vocabulary: Vocabulary,
    score_threshold: float = 0.3,
) -> NDArray[np.uint8]:
    """The predicted map, of the same size as ``draw_semantic`` gives; a map has no scores, so the
    threshold does not matter.
    """
    return _drawn(image, prediction.classes, vocabulary)


def _drawn(
    image: NDArray[np.uint8], classes: NDArray[np.uint8], vocabulary: Vocabulary
) -> NDArray[np.uint8]:
    names = vocabulary.classes["semantic"]
    colours = colours_of(len(names), vocabulary.colours.get("semantic", ()))
    drawing = Drawing(image)
    drawing.tint_classes(classes, colours)
    drawing.name_regions(classes, names, colours)
    return drawing.pixels
