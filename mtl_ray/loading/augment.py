"""Changes made to scenes for training: image, boxes and maps move together.

Written with OpenCV and NumPy instead of torchvision's transforms v2, which cost several times as much for a small picture
(benchmarks/README.md); the tests hold both against each other. Random numbers come from the caller.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.colour import recoloured
from mtl_ray.loading.config import Augmentation, Colour, Flip, Mosaic, RandomCrop, Zoom
from mtl_ray.loading.mosaic import mosaic
from mtl_ray.loading.scene import Scene
from mtl_ray.samples import IGNORE_INDEX


def augmented(
    scene: Scene, changes: Sequence[Augmentation], numbers: random.Random, partners: Callable[[], list[Scene]], rule: Canvas
) -> Scene:
    """The scene after ``changes`` in their order, each made with its probability.

    Args:
        scene: as decoded.
        changes: ``data.augment``.
        numbers: where chance comes from.
        partners: gives the three other scenes of a mosaic, as decoded.
        rule: the canvas that the scene will be put on: the frame of a mosaic, and the grey of what is uncovered.
    """
    for change in changes:
        if numbers.random() >= change.p:
            continue
        match change:
            case Flip():
                scene = flipped(scene, change.direction)
            case RandomCrop():
                scene = _random_crop(scene, change, numbers)
            case Zoom():
                scene = _zoom(scene, change, numbers, rule.pad)
            case Colour():
                scene = recoloured(scene, change, numbers)
            case Mosaic():
                scene = mosaic([scene, *partners()], change, numbers, rule)
    return scene


def flipped(scene: Scene, direction: str) -> Scene:
    """Mirrored from left to right (``horizontal``) or upside down (``vertical``)."""
    axis = 0 if direction == "horizontal" else 1
    length = scene.image.shape[1 - axis]
    objects = scene.objects
    if objects is not None:
        boxes = objects.boxes_xyxy.copy()
        boxes[:, axis], boxes[:, axis + 2] = length - objects.boxes_xyxy[:, axis + 2], length - objects.boxes_xyxy[:, axis]
        objects = objects.moved(boxes)
    semantic = None if scene.semantic is None else _mirrored(scene.semantic, 1 - axis)
    return replace(scene, image=_mirrored(scene.image, 1 - axis), objects=objects, semantic=semantic)


def cut(scene: Scene, top: int, left: int, height: int, width: int, min_visible: float) -> Scene:
    """The part of a scene inside a rectangle, in pixels; boxes with less than the share ``min_visible`` inside are dropped."""
    rows, columns = slice(top, top + height), slice(left, left + width)
    objects = scene.objects
    if objects is not None:
        shifted = objects.moved(objects.boxes_xyxy - np.array([left, top, left, top], np.float32))
        objects = shifted.clipped(height, width, min_visible)
    semantic = None if scene.semantic is None else scene.semantic[rows, columns]
    return replace(scene, image=scene.image[rows, columns], objects=objects, semantic=semantic)


def padded(scene: Scene, top: int, left: int, height: int, width: int, pad: int) -> Scene:
    """The scene within a larger frame of (height, width) pixels, its corner at (top, left); the rest is grey without a class."""
    objects = scene.objects
    if objects is not None:
        objects = objects.moved(objects.boxes_xyxy + np.array([left, top, left, top], np.float32))
    borders = (top, height - top - scene.image.shape[0], left, width - left - scene.image.shape[1])
    image = cv2.copyMakeBorder(scene.image, *borders, cv2.BORDER_CONSTANT, value=(pad, pad, pad))
    semantic = scene.semantic
    if semantic is not None:
        semantic = np.asarray(cv2.copyMakeBorder(semantic, *borders, cv2.BORDER_CONSTANT, value=(IGNORE_INDEX,)), np.uint8)
    return replace(scene, image=np.asarray(image, np.uint8), objects=objects, semantic=semantic)


def _random_crop(scene: Scene, change: RandomCrop, numbers: random.Random) -> Scene:
    height, width = scene.hw
    area = numbers.uniform(*change.area)
    aspect = math.exp(numbers.uniform(math.log(change.aspect[0]), math.log(change.aspect[1])))
    cut_h = min(height, max(1, round(height * math.sqrt(area / aspect))))
    cut_w = min(width, max(1, round(width * math.sqrt(area * aspect))))
    top, left = _between(numbers, height - cut_h), _between(numbers, width - cut_w)
    return cut(scene, top, left, cut_h, cut_w, change.min_visible)


def _zoom(scene: Scene, change: Zoom, numbers: random.Random, pad: int) -> Scene:
    """A larger image in the same frame is a part of it on the same canvas, and a smaller one has a border: nothing is resampled here."""
    height, width = scene.hw
    scale = numbers.uniform(*change.scale)
    frame_h, frame_w = max(1, round(height / scale)), max(1, round(width / scale))
    if scale >= 1:
        top, left = _between(numbers, height - frame_h), _between(numbers, width - frame_w)
        return cut(scene, top, left, frame_h, frame_w, change.min_visible)
    top, left = _between(numbers, frame_h - height), _between(numbers, frame_w - width)
    return padded(scene, top, left, frame_h, frame_w, pad)


def _between(numbers: random.Random, most: int) -> int:
    """An integer from 0 to ``most``, each as likely; ``Random.random`` alone is promised to stay the same between Pythons."""
    return int(numbers.random() * (most + 1))


def _mirrored(array: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.flip(array, axis), np.uint8)
