"""Objects and detections drawn on a cloud as seen from above."""

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.geometry.appearance import Rgb, colours_of
from mtl_ray.geometry.birds_eye import draw_boxes
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.lidar.decode import Detections3d

_OTHER = (150, 150, 150)


def draw_objects(
    image: NDArray[np.uint8], sample: Sample, vocabulary: Vocabulary
) -> NDArray[np.uint8]:
    """The annotated objects; those without a class of the vocabulary are grey.

    Args:
        image: of ``birds_eye.draw_points``.
        sample: without boxes in space, the image stays as it is.
        vocabulary: names and colours.
    """
    value: Boxes3d | None = sample.annotations.get("boxes_3d")
    if value is None:
        return image
    classes = vocabulary.classes["boxes_3d"]
    palette = colours_of(len(classes), vocabulary.colours.get("boxes_3d", ()))
    known = len(value.classes)
    names = [*(classes[each] for each in value.classes), *value.names[known:]]
    colours: list[Rgb] = [palette[int(each)] for each in value.classes]
    colours += [_OTHER] * (len(value) - known)
    # those without a class first, so that they hide nothing
    order = [*range(known, len(value)), *range(known)]
    return draw_boxes(
        image, value.boxes[order], [names[i] for i in order], [colours[i] for i in order]
    )


def draw_detections(
    image: NDArray[np.uint8],
    prediction: Detections3d,
    vocabulary: Vocabulary,
    score_threshold: float = 0.3,
) -> NDArray[np.uint8]:
    """The detections with a score of at least ``score_threshold``; arguments as of
    ``draw_objects``.
    """
    classes = vocabulary.classes["boxes_3d"]
    palette = colours_of(len(classes), vocabulary.colours.get("boxes_3d", ()))
    shown = np.flatnonzero(prediction.scores >= score_threshold)
    labels = prediction.classes[shown].tolist()
    return draw_boxes(
        image,
        prediction.boxes[shown],
        [classes[label] for label in labels],
        [palette[label] for label in labels],
        prediction.scores[shown].tolist(),
    )
