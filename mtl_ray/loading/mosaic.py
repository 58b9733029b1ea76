"""Four scenes around one point (Bochkovskiy et al. 2020, YOLOv4, figure 3)."""

import random
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.frame import scaled
from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.config import Mosaic
from mtl_ray.loading.scene import Objects, Scene
from mtl_ray.samples import IGNORE_INDEX


def mosaic(scenes: Sequence[Scene], change: Mosaic, numbers: random.Random, rule: Canvas) -> Scene:
    """A frame of the canvas's size whose quarters, around a random point, hold a corner of each of four scenes.

    A scene without boxes' annotation becomes a region to ignore; one without a map, pixels without a class. Image labels are
    those of all four, and unknown if those of one are.
    """
    frame = np.full((rule.height, rule.width, 3), rule.pad, np.uint8)
    mapped = any(scene.semantic is not None for scene in scenes)
    semantic = np.full((rule.height, rule.width), IGNORE_INDEX, np.uint8) if mapped else None
    centre_y, centre_x = round(rule.height * numbers.uniform(*change.centre)), round(rule.width * numbers.uniform(*change.centre))
    objects = []
    for quarter, scene in enumerate(scenes):
        above, before = quarter < 2, quarter % 2 == 0
        scale = numbers.uniform(*change.scale) * min(rule.height / scene.hw[0], rule.width / scene.hw[1])
        rows, scale_y = _span(scene.hw[0], centre_y if above else rule.height - centre_y, scale, from_end=above)
        columns, scale_x = _span(scene.hw[1], centre_x if before else rule.width - centre_x, scale, from_end=before)
        height, width = round((rows.stop - rows.start) * scale_y), round((columns.stop - columns.start) * scale_x)
        if not height or not width:
            continue
        top, left = centre_y - height if above else centre_y, centre_x - width if before else centre_x
        target = slice(top, top + height), slice(left, left + width)
        frame[target] = scaled(scene.image[rows, columns], height, width)
        if semantic is not None and scene.semantic is not None:
            part = scene.semantic[rows, columns]
            semantic[target] = cv2.resize(part, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        objects.append(_placed(scene.objects, rows, columns, (scale_y, scale_x), (top, left, height, width), change.min_visible))
    return Scene(image=frame, labels=_all_labels(scenes), objects=_joined(scenes, objects), semantic=semantic)


def _span(length: int, room: int, scale: float, *, from_end: bool) -> tuple[slice, float]:
    """Which pixels of a side of ``length`` are shown in ``room`` pixels of the frame, and frame pixels per pixel."""
    shown = max(1, min(length, round(room / scale)))
    scaled = min(room, max(1, round(shown * scale)))
    return (slice(length - shown, length) if from_end else slice(0, shown)), scaled / shown


def _placed(
    objects: Objects | None,
    rows: slice,
    columns: slice,
    scale_yx: tuple[float, float],
    region: tuple[int, int, int, int],
    min_visible: float,
) -> Objects:
    top, left, height, width = region
    corner = np.array([left, top, left, top], np.float32)
    if objects is None:
        whole = np.array([[left, top, left + width, top + height]], np.float32)
        return Objects(boxes_xyxy=whole, classes=np.zeros(1, np.int64), crowd=np.ones(1, np.bool_))
    scale = np.array([scale_yx[1], scale_yx[0]] * 2, np.float32)
    start = np.array([columns.start, rows.start] * 2, np.float32)
    shown = objects.moved((objects.boxes_xyxy - start) * scale).clipped(height, width, min_visible)
    return shown.moved(shown.boxes_xyxy + corner)


def _joined(scenes: Sequence[Scene], parts: Sequence[Objects]) -> Objects | None:
    if all(scene.objects is None for scene in scenes):
        return None
    return Objects(
        boxes_xyxy=np.concatenate([part.boxes_xyxy for part in parts]),
        classes=np.concatenate([part.classes for part in parts]),
        crowd=np.concatenate([part.crowd for part in parts]),
    )


def _all_labels(scenes: Sequence[Scene]) -> NDArray[np.int64] | None:
    labels = [scene.labels for scene in scenes if scene.labels is not None]
    return np.unique(np.concatenate(labels)) if len(labels) == len(scenes) else None
