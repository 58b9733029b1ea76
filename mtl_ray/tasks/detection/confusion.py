"""Which objects were taken for which: boxes matched one to one, those of the same class first."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mtl_ray.tasks.charts import BACKGROUND, Confusion
from mtl_ray.tasks.detection.columns import (
    DetectionColumns,
    ObjectColumns,
    OverlapPairs,
    ScoredImage,
    detection_columns,
    object_columns,
    overlap_pairs,
    reaches_score,
)

MIN_IOU = 0.5
MIN_SCORE = 0.3
"""Detections with a lower score are left out; pictures leave them out too."""


def detection_confusion(
    images: Sequence[ScoredImage], names: tuple[str, ...], *, min_score: float = MIN_SCORE, min_iou: float = MIN_IOU
) -> Confusion:
    """Counts objects by annotated and predicted class; the last row and column are the background.

    Detections with a score of at least ``min_score`` choose, best first, the free object of their own class that they overlap most,
    at least by ``min_iou``; those that are left choose in the same way among the free objects of any class. What overlaps no free
    object was found in the background, an object that nothing chose was taken for background. Objects that are ``crowd`` or
    ``difficult`` count neither way, and neither does what was found on them; of
    a crowd that is what lies on it by at least ``min_iou`` of its own area and is of the same class.

    Args:
        images: truth and detections.
        names: of the classes.
        min_score: of the detections that count.
        min_iou: above 0.
    """
    objects, found = object_columns(images), detection_columns(images)
    shown = reaches_score(images, min_score)
    near = _best_first(overlap_pairs(found, objects, min_iou, crowd_whole=True), found, shown)
    free = ~objects.optional[near.object]
    chosen = _choose(near, free, found, objects)
    same = found.classes[near.detection] == objects.classes[near.object]
    on_ignored = np.zeros(len(shown), np.bool_)
    on_ignored[near.detection[~free & (same | ~objects.crowd[near.object])]] = True
    counted = shown & ((chosen >= 0) | ~on_ignored)
    none = len(names)
    counts = np.zeros((none + 1, none + 1), np.int64)
    truth = np.where(chosen >= 0, np.append(objects.classes, none)[chosen], none)
    np.add.at(counts, (truth[counted], found.classes[counted]), 1)
    missed = ~objects.optional
    missed[chosen[chosen >= 0]] = False
    counts[:none, none] += np.bincount(objects.classes[missed], minlength=none)
    return Confusion(names=(*names, BACKGROUND), counts=counts, unit="objects", note=f"IoU {min_iou:g}, score {min_score:g}")


def _best_first(near: OverlapPairs, found: DetectionColumns, shown: NDArray[np.bool_]) -> OverlapPairs:
    """The pairs of the detections that are shown, the best detections first, of each the object that it overlaps most."""
    kept = np.flatnonzero(shown[near.detection])
    order = kept[np.lexsort((near.object[kept], -near.iou[kept], near.detection[kept], -found.scores[near.detection[kept]]))]
    return OverlapPairs(near.detection[order], near.object[order], near.iou[order])


def _choose(near: OverlapPairs, free: NDArray[np.bool_], found: DetectionColumns, objects: ObjectColumns) -> NDArray[np.int64]:
    """Of each detection the object that it chose; -1 if it found none."""
    chosen = np.full(len(found.classes), -1)
    taken = np.zeros(len(objects.classes), np.bool_)
    same = found.classes[near.detection] == objects.classes[near.object]
    for eligible in (free & same, free & ~same):
        for detection, place in _greedy(near, np.flatnonzero(eligible & (chosen[near.detection] < 0) & ~taken[near.object])):
            chosen[detection] = place
            taken[place] = True
    return chosen


def _greedy(near: OverlapPairs, order: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """The pairs, in this order, of which neither part was in an earlier one that was taken."""
    detections, places = set[int](), set[int]()
    for detection, place in zip(near.detection[order].tolist(), near.object[order].tolist(), strict=True):
        if detection not in detections and place not in places:
            detections.add(detection)
            places.add(place)
            yield detection, place
