"""The objects and the detections of many images as columns, one image after another, and which of them overlap."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.tasks.detection.decode import Detections

PAIRS_AT_ONCE = 2**17
"""Of objects and detections that are compared; this bounds the memory."""


class ScoredImage(NamedTuple):
    """One image: its ground truth and its predictions."""

    key: str
    height: int
    width: int
    ground_truth: Instances
    predicted: Detections


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectColumns:
    """N objects.

    Attributes:
        image: int64 (N,), places of their images, rising.
        boxes_xyxy: float64 (N, 4).
        classes: int64 (N,).
        areas: float64 (N,).
        crowd: bool (N,).
        optional: bool (N,), crowd or difficult: need not be found, and what is found there counts neither way.
    """

    image: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float64]
    classes: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    optional: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionColumns:
    """D detections.

    Attributes:
        image: int64 (D,), places of their images, rising.
        boxes_xyxy: float64 (D, 4).
        classes: int64 (D,).
        scores: float64 (D,).
    """

    image: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]


class OverlapPairs(NamedTuple):
    """P pairs of a detection and an object of one image, sorted by detection, then object.

    ``detection`` and ``object`` int64 (P,) are their indices among all, ``iou`` is float64 (P,).
    """

    detection: NDArray[np.int64]
    object: NDArray[np.int64]
    iou: NDArray[np.float64]


def object_columns(images: Sequence[ScoredImage]) -> ObjectColumns:
    """All objects."""
    truths = [image.ground_truth for image in images]
    crowd = _joined([truth.crowd for truth in truths], np.bool_)
    return ObjectColumns(
        image=np.repeat(np.arange(len(images)), [len(truth) for truth in truths]),
        boxes_xyxy=_joined([truth.boxes_xyxy for truth in truths], np.float64, 4),
        classes=_joined([truth.classes for truth in truths], np.int64),
        areas=_joined([truth.areas for truth in truths], np.float64),
        crowd=crowd,
        optional=crowd | _joined([truth.difficult for truth in truths], np.bool_),
    )


def detection_columns(images: Sequence[ScoredImage]) -> DetectionColumns:
    """All detections."""
    found = [image.predicted for image in images]
    return DetectionColumns(
        image=np.repeat(np.arange(len(images)), [len(each) for each in found]),
        boxes_xyxy=_joined([each.boxes_xyxy for each in found], np.float64, 4),
        classes=_joined([each.classes for each in found], np.int64),
        scores=_joined([each.scores for each in found], np.float64),
    )


def reaches_score(images: Sequence[ScoredImage], score: float) -> NDArray[np.bool_]:
    """Which of all detections (D,) have a score of at least this, in the scores' own precision: a float32 of 0.7 has 0.7."""
    return _joined([image.predicted.scores >= score for image in images], np.bool_)


def _joined(parts: Sequence[NDArray[Any]], kind: type[np.generic], *shape: int) -> NDArray[Any]:
    return np.concatenate([np.zeros((0, *shape), kind), *parts]).astype(kind, copy=False)


def overlap_pairs(
    found: DetectionColumns, objects: ObjectColumns, least: float, *, same_class: bool = False, crowd_whole: bool = False
) -> OverlapPairs:
    """All pairs within an image whose IoU is at least ``least``, which is above 0.

    Args:
        found: the detections.
        objects: the objects.
        least: IoU.
        same_class: only pairs of one class.
        crowd_whole: for a crowd, the share of the detection that lies on it counts in place of the IoU, as in COCO's protocol.
    """
    every = _pairs(found.image, objects.image)
    if same_class:
        every = ((one[same], other[same]) for one, other in every if (same := found.classes[one] == objects.classes[other]).any())
    parts = [_near(pairs, found, objects, least, crowd_whole) for pairs in every]
    none = np.empty(0, np.int64)
    columns = [np.concatenate([none, *(part[i] for part in parts)]) for i in range(2)]
    return OverlapPairs(columns[0], columns[1], np.concatenate([np.empty(0), *(part[2] for part in parts)]))


def _pairs(found_image: NDArray[np.int64], object_image: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Places of every detection and every object of its image, a bounded number at a time."""
    first = np.searchsorted(object_image, found_image)
    count = np.searchsorted(object_image, found_image, side="right") - first
    ends = np.cumsum(count)
    start = 0
    while start < len(count):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, side="right")))
        of, number = np.arange(start, stop), count[start:stop]
        found = np.repeat(of, number)
        within = np.arange(len(found)) - np.repeat(ends[start:stop] - number - done, number)
        yield found, first[found] + within
        start = stop


def _near(
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]], found: DetectionColumns, objects: ObjectColumns, least: float, crowd_whole: bool
) -> OverlapPairs:
    one, other = found.boxes_xyxy[pairs[0]], objects.boxes_xyxy[pairs[1]]
    width = np.minimum(one[:, 2], other[:, 2]) - np.maximum(one[:, 0], other[:, 0])
    height = np.minimum(one[:, 3], other[:, 3]) - np.maximum(one[:, 1], other[:, 1])
    touching = np.flatnonzero((width > 0) & (height > 0))
    common = width[touching] * height[touching]
    own = _areas(one[touching])
    union = own + _areas(other[touching]) - common
    if crowd_whole:
        union = np.where(objects.crowd[pairs[1][touching]], own, union)
    iou = common / union
    near = iou >= least
    kept = touching[near]
    return OverlapPairs(pairs[0][kept], pairs[1][kept], iou[near])


def _areas(boxes_xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1]), np.float64)
