"""Scores single images: the mean average precision of each image.

The rule is that of MMDetection's ``analyze_results``: Pascal VOC's area under the curve of each
class that has objects in the image, averaged over these classes and over the IoU thresholds 0.50 to
0.95.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_ray.tasks.detection.columns import (
    DetectionColumns,
    ObjectColumns,
    OverlapPairs,
    ScoredImage,
    detection_columns,
    object_columns,
    overlap_pairs,
)

THRESHOLDS = np.linspace(0.5, 0.95, 10)


class Ranked(NamedTuple):
    """The detections of classes that their image has, by image and class, best first.

    Attributes:
        group: (D,) group of one image and class.
        object: (D,) the object of the group that the detection overlaps most; -1 if the overlap is
            below one half.
        iou: (D,) overlap with this object.
        optional: (D,) whether this object is optional.
    """

    group: NDArray[np.int64]
    object: NDArray[np.int64]
    iou: NDArray[np.float64]
    optional: NDArray[np.bool_]


def image_scores(
    images: Sequence[ScoredImage], *, crowd_counts: bool = False
) -> NDArray[np.float64]:
    """The score of each image, float64 (N,); NaN if there is no object to find.

    In the order of their scores, detections match the object of their class that they overlap most.
    A detection is wrong if its object was found before, or if the overlap is too small. Crowds and
    difficult objects are optional: detections on them do not count.

    Args:
        images: ground truth and detections.
        crowd_counts: treat crowds like other objects, as MMDetection 3.x does.
    """
    objects, found = object_columns(images), detection_columns(images)
    if crowd_counts:
        objects = replace(objects, optional=objects.optional & ~objects.crowd)
    wanted = np.flatnonzero(~objects.optional)
    classes = max(objects.classes.max(initial=0), found.classes.max(initial=0)) + 1
    groups, total = np.unique(
        objects.image[wanted] * classes + objects.classes[wanted], return_counts=True
    )
    ranked = _rank(objects, found, groups, found.image * classes + found.classes)
    average = np.mean(
        [_average_precision(ranked, total, threshold) for threshold in THRESHOLDS], axis=0
    )
    of_image = groups // classes
    count = np.bincount(of_image, minlength=len(images))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.bincount(of_image, average, minlength=len(images)) / count, np.float64)


def overlaps_float32(
    found: DetectionColumns, objects: ObjectColumns, least: float, *, same_class: bool = False
) -> OverlapPairs:
    """``overlap_pairs`` in float32 like MMDetection, which matters at a threshold."""
    rounded = replace(found, boxes_xyxy=found.boxes_xyxy.astype(np.float32))
    return overlap_pairs(
        rounded,
        replace(objects, boxes_xyxy=objects.boxes_xyxy.astype(np.float32)),
        least,
        same_class=same_class,
    )


def _rank(
    objects: ObjectColumns,
    found: DetectionColumns,
    groups: NDArray[np.int64],
    group_of: NDArray[np.int64],
) -> Ranked:
    near = overlaps_float32(found, objects, 0.4999, same_class=True)
    best = np.lexsort((near.object, objects.optional[near.object], -near.iou, near.detection))
    detection, first = np.unique(near.detection[best], return_index=True)
    chosen, iou = np.full(len(found.scores), -1), np.zeros(len(found.scores))
    chosen[detection], iou[detection] = near.object[best[first]], near.iou[best[first]]
    kept = np.flatnonzero(np.isin(group_of, groups))
    order = kept[np.lexsort((-found.scores[kept], group_of[kept]))]
    optional = np.append(objects.optional, False)[chosen]
    return Ranked(
        np.searchsorted(groups, group_of[order]), chosen[order], iou[order], optional[order]
    )


def _average_precision(
    ranked: Ranked, total: NDArray[np.int64], threshold: float
) -> NDArray[np.float64]:
    """The average precision of each group: the sum over found objects of the interpolated
    precision, divided by the number of objects.
    """
    hit = ranked.iou >= threshold
    counted = np.flatnonzero(~(hit & ranked.optional))
    group, place = ranked.group[counted], np.where(hit, ranked.object, -1)[counted]
    right = np.zeros(len(counted), np.bool_)
    right[np.unique(place, return_index=True)[1]] = True
    right &= place >= 0
    start = np.searchsorted(group, group)
    hits = np.cumsum(right)
    precision = (hits - np.append(0, hits)[start]) / (np.arange(len(group)) - start + 1)
    # an offset separates the groups, so that one pass handles all
    lift = 2.0 * (len(total) - group)
    envelope = np.maximum.accumulate((precision + lift)[::-1])[::-1] - lift
    return np.bincount(group[right], envelope[right], minlength=len(total)) / total
