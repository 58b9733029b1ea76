"""The confusion matrix of objects: boxes are matched one to one, those of the same class first."""

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
"""Detections with a lower score are left out, as in drawings."""


def detection_confusion(
    images: Sequence[ScoredImage],
    names: tuple[str, ...],
    *,
    min_score: float = MIN_SCORE,
    min_iou: float = MIN_IOU,
) -> Confusion:
    """Counts objects by annotated and predicted class; the last row and column are the background.

    Detections with a score of at least ``min_score`` are matched, best first, to the unmatched
    object of their class with the most IoU, which must be at least ``min_iou``. The remaining ones
    are matched in the same way to unmatched objects of any class. An unmatched detection counts as
    background, and so does an unmatched object. Objects that are ``crowd`` or ``difficult`` are
    ignored, with the detections on them. A detection is on a crowd if at least ``min_iou`` of its
    own area is, and the class is the same.

    Args:
        images: ground truth and detections.
        names: of the classes.
        min_score: of the detections that count.
        min_iou: above 0.
    """
    objects, predicted = object_columns(images), detection_columns(images)
    shown = reaches_score(images, min_score)
    near = _best_first(
        overlap_pairs(predicted, objects, min_iou, crowd_whole=True), predicted, shown
    )
    free = ~objects.optional[near.object]
    chosen = _choose(near, free, predicted, objects)
    same = predicted.classes[near.detection] == objects.classes[near.object]
    on_ignored = np.zeros(len(shown), np.bool_)
    on_ignored[near.detection[~free & (same | ~objects.crowd[near.object])]] = True
    counted = shown & ((chosen >= 0) | ~on_ignored)
    none = len(names)
    counts = np.zeros((none + 1, none + 1), np.int64)
    gt = np.where(chosen >= 0, np.append(objects.classes, none)[chosen], none)
    np.add.at(counts, (gt[counted], predicted.classes[counted]), 1)
    missed = ~objects.optional
    missed[chosen[chosen >= 0]] = False
    counts[:none, none] += np.bincount(objects.classes[missed], minlength=none)
    return Confusion(
        names=(*names, BACKGROUND),
        counts=counts,
        unit="objects",
        note=f"IoU {min_iou:g}, score {min_score:g}",
    )


def _best_first(
    near: OverlapPairs, predicted: DetectionColumns, shown: NDArray[np.bool_]
) -> OverlapPairs:
    """The pairs of the shown detections, best detections first, for each the objects with the most
    IoU first.
    """
    kept = np.flatnonzero(shown[near.detection])
    order = kept[
        np.lexsort(
            (
                near.object[kept],
                -near.iou[kept],
                near.detection[kept],
                -predicted.scores[near.detection[kept]],
            )
        )
    ]
    return OverlapPairs(near.detection[order], near.object[order], near.iou[order])


def _choose(
    near: OverlapPairs, free: NDArray[np.bool_], predicted: DetectionColumns, objects: ObjectColumns
) -> NDArray[np.int64]:
    """The matched object of each detection; -1 if there is none."""
    chosen = np.full(len(predicted.classes), -1)
    taken = np.zeros(len(objects.classes), np.bool_)
    same = predicted.classes[near.detection] == objects.classes[near.object]
    for eligible in (free & same, free & ~same):
        for detection, place in _greedy(
            near, np.flatnonzero(eligible & (chosen[near.detection] < 0) & ~taken[near.object])
        ):
            chosen[detection] = place
            taken[place] = True
    return chosen


def _greedy(near: OverlapPairs, order: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """The pairs in this order whose detection and object are in no earlier returned pair."""
    detections, places = set[int](), set[int]()
    for detection, place in zip(
        near.detection[order].tolist(), near.object[order].tolist(), strict=True
    ):
        if detection not in detections and place not in places:
            detections.add(detection)
            places.add(place)
            yield detection, place
