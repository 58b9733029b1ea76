"""Pascal VOC's average precision and recall (Everingham et al. 2010, section 4.2) at one IoU
threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.tasks.detection.columns import (
    DetectionColumns,
    ObjectColumns,
    ScoredImage,
    detection_columns,
    object_columns,
    overlap_pairs,
)

THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class VocTable:
    """Results by class, float64 (C,); NaN for a class without an object to find.

    Attributes:
        area: area under the precision-recall curve (VOC 2010 and later).
        eleven: mean precision at the recalls 0, 0.1, ... 1 (VOC 2007).
        recall: share of the objects that were predicted.
    """

    area: NDArray[np.float64]
    eleven: NDArray[np.float64]
    recall: NDArray[np.float64]


def voc_table(images: Sequence[ScoredImage], num_classes: int) -> VocTable:
    """Matches each detection to the object of its class with the most IoU.

    The detection with the best score and an IoU of at least 0.5 finds the object, further ones are
    wrong. An object that is ``difficult`` or ``crowd`` need not be found, and detections matched to
    it are ignored.
    """
    objects, predicted = object_columns(images), detection_columns(images)
    chosen = _chosen(objects, predicted)
    ignored = (chosen >= 0) & np.append(objects.optional, False)[chosen]
    labels = objects.classes[~objects.optional]
    table = np.full((3, num_classes), np.nan)
    for label in np.unique(labels):
        total = int((labels == label).sum())
        mine = np.flatnonzero((predicted.classes == label) & ~ignored)
        mine = mine[np.argsort(-predicted.scores[mine], kind="stable")]
        correct = np.cumsum(_first_of_each(chosen[mine]))
        recall, precision = correct / total, correct / np.arange(1, len(mine) + 1)
        table[:, label] = (
            _area(recall, precision),
            _eleven(recall, precision),
            recall[-1] if len(mine) else 0.0,
        )
    return VocTable(area=table[0], eleven=table[1], recall=table[2])


def _chosen(objects: ObjectColumns, predicted: DetectionColumns) -> NDArray[np.int64]:
    """The object of its class with the most IoU for each detection (the first of equal ones); -1 if
    all are below 0.5.
    """
    near = overlap_pairs(predicted, objects, THRESHOLD, same_class=True)
    best = np.lexsort((near.object, -near.iou, near.detection))
    detection, first = np.unique(near.detection[best], return_index=True)
    chosen = np.full(len(predicted.classes), -1)
    chosen[detection] = near.object[best[first]]
    return chosen


def _first_of_each(objects: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True at the first occurrence of each object (not -1)."""
    first = np.zeros(len(objects), np.bool_)
    first[np.unique(objects, return_index=True)[1]] = True
    return first & (objects >= 0)


def _area(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """Area under the curve; precision is made non-increasing with recall."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def _eleven(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    return float(
        np.mean([precision[recall >= level].max(initial=0.0) for level in np.arange(11) / 10])
    )
