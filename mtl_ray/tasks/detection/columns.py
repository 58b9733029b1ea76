"""The objects and detections of many images as columns, image by image, and the pairs that
overlap.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.tasks.detection.decode import Detections

PAIRS_AT_ONCE = 2**17
"""Pairs of objects and detections that are compared at once; it bounds the memory."""


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
        image: int64 (N,), indices of their images, ascending.
        boxes_xyxy: float64 (N, 4).
        classes: int64 (N,).
        areas: float64 (N,).
        crowd: bool (N,).
        optional: bool (N,), crowd or difficult: need not be found, and detections on it are
            ignored.
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
        image: int64 (D,), indices of their images, ascending.
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


def images_with_masks(images: Sequence[ScoredImage]) -> list[ScoredImage]:
    """The images on which masks can be compared: without those whose objects have boxes only."""
    return [
        image
        for image in images
        if image.ground_truth.masks is not None
        and (not image.ground_truth.masks or any(image.ground_truth.masks))
    ]


def object_columns(images: Sequence[ScoredImage]) -> ObjectColumns:
    """The objects of all images."""
    gts = [image.ground_truth for image in images]
    crowd = _joined([gt.crowd for gt in gts], np.bool_)
    return ObjectColumns(
        image=np.repeat(np.arange(len(images)), [len(gt) for gt in gts]),
        boxes_xyxy=_joined([gt.boxes_xyxy for gt in gts], np.float64, 4),
        classes=_joined([gt.classes for gt in gts], np.int64),
        areas=_joined([gt.areas for gt in gts], np.float64),
        crowd=crowd,
        optional=crowd | _joined([gt.difficult for gt in gts], np.bool_),
    )


def detection_columns(images: Sequence[ScoredImage]) -> DetectionColumns:
    """The detections of all images."""
    found = [image.predicted for image in images]
    return DetectionColumns(
        image=np.repeat(np.arange(len(images)), [len(each) for each in found]),
        boxes_xyxy=_joined([each.boxes_xyxy for each in found], np.float64, 4),
        classes=_joined([each.classes for each in found], np.int64),
        scores=_joined([each.scores for each in found], np.float64),
    )


def reaches_score(images: Sequence[ScoredImage], score: float) -> NDArray[np.bool_]:
    """Bool (D,), the detections with at least this score, compared in the dtype of the scores:
    float32 0.7 reaches 0.7.
    """
    return _joined([image.predicted.scores >= score for image in images], np.bool_)


def _joined(parts: Sequence[NDArray[Any]], kind: type[np.generic], *shape: int) -> NDArray[Any]:
    return np.concatenate([np.zeros((0, *shape), kind), *parts]).astype(kind, copy=False)


def overlap_pairs(
    found: DetectionColumns,
    objects: ObjectColumns,
    least: float,
    *,
    same_class: bool = False,
    crowd_whole: bool = False,
) -> OverlapPairs:
    """All pairs within an image with an IoU of at least ``least``, which must be above 0.

    Args:
        found: the detections.
        objects: the objects.
        least: smallest IoU.
        same_class: only pairs of the same class.
        crowd_whole: for a crowd, intersection over detection area instead of IoU, as in COCO's
            protocol.
    """
    every = _pairs(found.image, objects.image)
    if same_class:
        every = (
            (one[same], other[same])
            for one, other in every
            if (same := found.classes[one] == objects.classes[other]).any()
        )
    parts = [_near(pairs, found, objects, least, crowd_whole) for pairs in every]
    none = np.empty(0, np.int64)
    columns = [np.concatenate([none, *(part[i] for part in parts)]) for i in range(2)]
    return OverlapPairs(
        columns[0], columns[1], np.concatenate([np.empty(0), *(part[2] for part in parts)])
    )


def _pairs(
    found_image: NDArray[np.int64], object_image: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Index pairs of every detection and every object of its image, at most ``PAIRS_AT_ONCE`` at a
    time if possible.
    """
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
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    found: DetectionColumns,
    objects: ObjectColumns,
    least: float,
    crowd_whole: bool,
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
    return np.asarray(
        (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1]), np.float64
    )
