"""Boxes in space drawn into the images of the cameras around a lidar."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.geometry.cameras import boxes_2d, visible_edges
from mtl_ray.geometry.drawing import Drawing
from mtl_ray.geometry.figures import colours_of
from mtl_ray.inputs.decode import decode_image
from mtl_ray.inputs.point_cloud import Camera, EncodedPoints
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.views import DrawnView

_MISSING = 60
"""The grey of an image that cannot be read."""


def draw_cameras(
    sample: Sample,
    vocabulary: Vocabulary,
    prediction: Detections3d | None,
    score_threshold: float,
) -> list[DrawnView]:
    """The image of each camera that the sample has one of, with the boxes that it sees.

    Args:
        sample: with a cloud; its annotated objects with a class are drawn if there is no
            prediction.
        vocabulary: names and colours.
        prediction: its objects with a score of at least ``score_threshold`` are drawn.
        score_threshold: see there.
    """
    encoded = sample.inputs.get("points")
    if not isinstance(encoded, EncodedPoints):
        return []
    objects = sample.annotations.get("boxes_3d")
    if prediction is not None:
        kept = prediction.scores >= score_threshold
        boxes, classes = prediction.boxes[kept], prediction.classes[kept]
        scores: Sequence[float | None] = prediction.scores[kept].tolist()
    elif isinstance(objects, Boxes3d):
        boxes, classes = objects.boxes[: len(objects.classes)], objects.classes
        scores = [None] * len(classes)
    else:
        return []
    names = vocabulary.classes["boxes_3d"]
    colours = colours_of(len(names), vocabulary.colours.get("boxes_3d", ()))
    labels = [
        names[kind] if score is None else f"{names[kind]} {score:.2f}"
        for kind, score in zip(classes.tolist(), scores, strict=True)
    ]
    return [
        (title, _drawn(image, camera, boxes, labels, [colours[kind] for kind in classes.tolist()]))
        for title, image, camera in _images(encoded)
    ]


def _images(encoded: EncodedPoints) -> Iterator[tuple[str, NDArray[np.uint8], Camera]]:
    for camera, data in zip(encoded.calibration.cameras, encoded.images, strict=False):
        if not data:
            continue
        try:
            yield camera.name, decode_image(data), camera
        except ValueError as error:
            grey = np.full((camera.height or 1, camera.width or 1, 3), _MISSING, np.uint8)
            yield f"{camera.name}: {error}", grey, camera


def _drawn(
    image: NDArray[np.uint8],
    camera: Camera,
    boxes: NDArray[np.float32],
    labels: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
) -> NDArray[np.uint8]:
    """Far boxes first, so that near ones lie on them."""
    drawing = Drawing(image)
    around = boxes_2d(boxes, camera)  # (N, 4)
    owners, ends = visible_edges(boxes, camera)  # (E,), (E, 2, 2)
    for index in np.argsort(-np.linalg.norm(boxes[:, :3], axis=1), kind="stable").tolist():
        if np.isfinite(around[index]).all():
            drawing.lines(ends[owners == index], colours[index])
            drawing.label(around[index], labels[index], colours[index])
    return drawing.pixels
