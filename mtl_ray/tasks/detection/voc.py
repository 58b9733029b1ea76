"""Pascal VOC's average precision and recall (Everingham et al. 2010, section 4.2) at one IoU threshold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.boxes import iou_matrix
from mtl_ray.tasks.detection.coco import Scored

THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class VocTable:
    """By class index, float64 (C,); NaN for a class without an object to find.

    Attributes:
        area: area under the precision-recall curve (VOC 2010 and later).
        eleven: mean precision at the recalls 0, 0.1, ... 1 (VOC 2007).
        recall: share of the objects that were found at all.
    """

    area: NDArray[np.float64]
    eleven: NDArray[np.float64]
    recall: NDArray[np.float64]


def voc_table(images: Sequence[Scored], num_classes: int) -> VocTable:
    """Matches each detection to the object of its class that it overlaps most.

    The best-scored detection with an IoU of at least 0.5 finds the object, further ones are wrong. An object that is
    ``difficult`` or ``crowd`` need not be found, and a detection whose object it is counts neither way.
    """
    scores, classes, objects, ignored = _candidates(images)
    labels = np.concatenate([np.empty(0, np.int64), *(image.truth.classes[~_left_out(image)] for image in images)])
    table = np.full((3, num_classes), np.nan)
    for label in np.unique(labels):
        total = int((labels == label).sum())
        mine = np.flatnonzero((classes == label) & ~ignored)
        mine = mine[np.argsort(-scores[mine], kind="stable")]
        right = _first_of_each(objects[mine])
        found = np.cumsum(right)
        recall, precision = found / total, found / np.arange(1, len(mine) + 1)
        table[:, label] = _area(recall, precision), _eleven(recall, precision), recall[-1] if len(mine) else 0.0
    return VocTable(area=table[0], eleven=table[1], recall=table[2])


def _left_out(image: Scored) -> NDArray[np.bool_]:
    return image.truth.difficult | image.truth.crowd


def _candidates(images: Sequence[Scored]) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Of each detection the score, the class, the number of the object that it overlaps enough (-1: none), and if that one is left out."""
    objects, ignored, first = [np.empty(0, np.int64)], [np.empty(0, np.bool_)], 0
    for image in images:
        truth, found = image.truth, image.found
        best = np.full(len(found), -1)
        if len(truth) and len(found):
            overlap = np.where(found.classes[:, None] == truth.classes[None], iou_matrix(found.boxes_xyxy, truth.boxes_xyxy), -1)
            best = np.where(overlap.max(axis=1) >= THRESHOLD, overlap.argmax(axis=1), -1)
        ignored.append((best >= 0) & np.append(_left_out(image), False)[best])
        objects.append(np.where(best >= 0, best + first, -1))
        first += len(truth)
    scores = np.concatenate([np.empty(0), *(image.found.scores for image in images)])
    classes = np.concatenate([np.empty(0, np.int64), *(image.found.classes for image in images)])
    return scores, classes, np.concatenate(objects), np.concatenate(ignored)


def _first_of_each(objects: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True where an object (not -1) is met for the first time."""
    first = np.zeros(len(objects), np.bool_)
    first[np.unique(objects, return_index=True)[1]] = True
    return first & (objects >= 0)


def _area(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """Area under the curve, precision made to fall with recall."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def _eleven(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    return float(np.mean([precision[recall >= level].max(initial=0.0) for level in np.arange(11) / 10]))
