"""Boxes in space drawn into the images of the cameras around a lidar."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.geometry.appearance import colours_of
from mtl_ray.geometry.birds_eye import draw_boxes_on_camera
from mtl_ray.geometry.panels import beneath_px, shrunk
from mtl_ray.inputs.decode import decode_image
from mtl_ray.inputs.point_cloud import Camera, EncodedPoints
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.optional import DrawnView

_MISSING = 60
"""The grey of an image that cannot be read."""


def draw_cameras(
    sample: Sample,
    vocabulary: Vocabulary,
    prediction: Detections3d | None,
    score_threshold: float,
) -> list[DrawnView]:
    """The camera images of a sample with the boxes that each camera sees. The images are resized
    to the size in which they are shown before the boxes are drawn, so that names can be read.

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
        scores: list[float] | None = prediction.scores[kept].tolist()
    elif isinstance(objects, Boxes3d):
        boxes, classes = objects.boxes[: len(objects.classes)], objects.classes
        scores = None
    else:
        return []
    names = vocabulary.classes["boxes_3d"]
    colours = colours_of(len(names), vocabulary.colours.get("boxes_3d", ()))
    own_names = [names[kind] for kind in classes.tolist()]
    own_colours = [colours[kind] for kind in classes.tolist()]
    room = beneath_px(sum(map(bool, encoded.images)))
    views = list[DrawnView]()
    for title, image, camera in _images(encoded):
        small = shrunk(image, room)
        fitted = _fitted(camera, image.shape, small.shape)
        views.append(
            (title, draw_boxes_on_camera(small, boxes, fitted, own_names, own_colours, scores))
        )
    return views


def _fitted(camera: Camera, before: tuple[int, ...], now: tuple[int, ...]) -> Camera:
    """The camera of an image (H, W, 3) that was resized."""
    scale = np.array([now[1] / before[1], now[0] / before[0], 1.0])
    return replace(
        camera, width=now[1], height=now[0], projection=scale[:, None] * camera.projection
    )


def _images(encoded: EncodedPoints) -> Iterator[tuple[str, NDArray[np.uint8], Camera]]:
    for camera, data in zip(encoded.calibration.cameras, encoded.images, strict=False):
        if not data:
            continue
        try:
            yield camera.name, decode_image(data), camera
        except ValueError as error:
            yield f"{camera.name}: {error}", np.full((225, 400, 3), _MISSING, np.uint8), camera
