"""Objects drawn on their image: masks, boxes, keypoints and names."""

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.geometry import masks
from mtl_ray.geometry.appearance import colours_of
from mtl_ray.geometry.drawing import Drawing
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.detection.decode import Detections

_CROWD = (160, 160, 160)


def draw_objects(
    image: NDArray[np.uint8], sample: Sample, vocabulary: Vocabulary
) -> NDArray[np.uint8]:
    """The annotated objects; crowds are grey and dashed, difficult objects dashed.

    Args:
        image: (H, W, 3) uint8 RGB, the sample's image as shown.
        sample: without instances, the image stays as it is.
        vocabulary: names and colours.

    Returns:
        uint8 RGB of the image's size times a whole number (small images are enlarged).
    """
    drawing = Drawing(image)
    if sample.instances is not None:
        _draw_instances(drawing, sample.instances, image.shape[:2], vocabulary)
    return drawing.pixels


def draw_detections(
    image: NDArray[np.uint8],
    prediction: Detections,
    vocabulary: Vocabulary,
    score_threshold: float = 0.3,
) -> NDArray[np.uint8]:
    """The predicted objects with a score of at least ``score_threshold``, of the same size as
    ``draw_objects`` gives.
    """
    drawing = Drawing(image)
    names = vocabulary.classes["instances"]
    colours = colours_of(len(names), vocabulary.colours.get("instances", ()))
    for index in np.flatnonzero(prediction.scores >= score_threshold):
        kind = int(prediction.classes[index])
        if prediction.masks is not None and prediction.masks[index]:
            drawing.tint(masks.decode_rle(prediction.masks[index], *image.shape[:2]), colours[kind])
        drawing.box(
            prediction.boxes_xyxy[index],
            f"{names[kind]} {prediction.scores[index]:.2f}",
            colours[kind],
            legend=names[kind],
        )
        if prediction.keypoints is not None:
            points = prediction.keypoints[index].copy()
            points[:, 2] = np.where(points[:, 2] >= score_threshold, 2, 0)
            drawing.pose(points, vocabulary.skeleton, colours[kind])
    return drawing.pixels


def _draw_instances(
    drawing: Drawing, instances: Instances, hw: tuple[int, ...], vocabulary: Vocabulary
) -> None:
    """Large objects first, so that small ones stay visible on them."""
    names = vocabulary.classes["instances"]
    colours = colours_of(len(names), vocabulary.colours.get("instances", ()))
    sides = instances.boxes_xyxy[:, 2:] - instances.boxes_xyxy[:, :2]
    order = np.argsort(-sides.prod(axis=1), kind="stable")
    of_object = [
        _CROWD if instances.crowd[index] else colours[int(instances.classes[index])]
        for index in range(len(instances))
    ]
    for index in order:
        if instances.masks is not None and instances.masks[index]:
            drawing.tint(masks.decode_rle(instances.masks[index], hw[0], hw[1]), of_object[index])
    for index in order:
        name = names[int(instances.classes[index])] + (" crowd" if instances.crowd[index] else "")
        dashed = bool(instances.crowd[index] or instances.difficult[index])
        drawing.box(instances.boxes_xyxy[index], name, of_object[index], dashed=dashed, legend=name)
    if instances.keypoints is not None:
        for index in order:
            drawing.pose(instances.keypoints[index], vocabulary.skeleton, of_object[index])
