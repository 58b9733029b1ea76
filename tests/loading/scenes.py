"""Scenes made from a seed, for the tests of this room."""

from dataclasses import replace

import numpy as np

from mtl_ray.annotations.instance_values import Objects
from mtl_ray.annotations.instances import INSTANCES
from mtl_ray.annotations.labels import LABELS
from mtl_ray.annotations.semantic import SEMANTIC
from mtl_ray.loading.scene import Scene


def scene(
    seed: int, height: int = 40, width: int = 56, objects: int = 5, *, annotated: bool = True
) -> Scene:
    """Rectangles of one colour each on black: the image, the boxes and the map all say the same."""
    numbers = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.uint8)
    semantic = np.zeros((height, width), np.uint8)
    boxes = np.zeros((objects, 4), np.float32)
    for index in range(objects):
        y1, y2 = np.sort(numbers.choice(height + 1, 2, replace=False))
        x1, x2 = np.sort(numbers.choice(width + 1, 2, replace=False))
        boxes[index] = x1, y1, x2, y2
        image[y1:y2, x1:x2] = numbers.integers(40, 256, 3)
        semantic[y1:y2, x1:x2] = index + 1
    if not annotated:
        return Scene(raw=image, parts={}, known_classes={})
    classes = np.arange(1, objects + 1, dtype=np.int64)
    found = Objects(boxes_xyxy=boxes, classes=classes, crowd=np.zeros(objects, np.bool_))
    return Scene(
        raw=image,
        parts={LABELS: np.array([seed % 7], np.int64), INSTANCES: found, SEMANTIC: semantic},
        known_classes={},
    )


def with_objects(start: Scene, objects: Objects) -> Scene:
    """The same scene with other objects."""
    return replace(start, parts={**start.parts, INSTANCES: objects})
