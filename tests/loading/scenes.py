"""Scenes made from a seed, for the tests of this room."""

from dataclasses import replace

import cv2
import numpy as np

from mtl_ray.annotations.instance_masks import Masks
from mtl_ray.annotations.instance_values import Objects
from mtl_ray.annotations.instances import INSTANCES
from mtl_ray.annotations.labels import LABELS
from mtl_ray.annotations.semantic import SEMANTIC
from mtl_ray.geometry.masks import encode_rle
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


def masked_scene(seed: int, height: int = 60, width: int = 80, objects: int = 4) -> Scene:
    """Ellipses of one colour each on black, later ones in front, with the masks and boxes of what
    is visible, a keypoint in the middle of each box, and the same as a map. One object alone is a
    rectangle, whose box is that of its mask at any scale.
    """
    numbers = np.random.default_rng(seed)
    semantic = np.zeros((height, width), np.uint8)
    for index in range(objects):
        centre = int(numbers.integers(width)), int(numbers.integers(height))
        axes = int(numbers.integers(4, width // 3)), int(numbers.integers(4, height // 3))
        if objects == 1:
            semantic[max(0, centre[1] - axes[1]) : centre[1] + 3, max(0, centre[0] - axes[0]) :] = 1
        else:
            cv2.ellipse(semantic, centre, axes, 0, 0, 360, index + 1, -1)
    shown = [index for index in range(1, objects + 1) if (semantic == index).any()]
    colours = numbers.integers(40, 256, (objects + 1, 3)).astype(np.uint8)
    colours[0] = 0
    masks = [semantic == index for index in shown]
    boxes = np.array([box_of(mask) for mask in masks], np.float32).reshape(-1, 4)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    found = Objects(
        boxes_xyxy=boxes,
        classes=np.array(shown, np.int64),
        crowd=np.zeros(len(shown), np.bool_),
        masks=Masks.of([encode_rle(mask) for mask in masks], (height, width)),
        keypoints=np.concatenate([middle, np.full((len(shown), 1), 2)], axis=1)[:, None].astype(
            np.float32
        ),
    )
    return Scene(
        raw=colours[semantic],
        parts={LABELS: np.array([seed % 7], np.int64), INSTANCES: found, SEMANTIC: semantic},
        known_classes={"instances": np.ones(9, np.bool_)},
    )


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The xyxy box around the pixels of a mask."""
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def drawn_masks(scene: Scene) -> np.ndarray:
    """(N, H, W) the masks of the objects of a scene."""
    masks = scene.part("instances").masks
    into = np.zeros((len(masks.counts), *scene.hw), np.uint8)
    masks.render(into)
    return into
