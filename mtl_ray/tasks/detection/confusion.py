"""Which objects were taken for which: boxes matched whatever their classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.boxes import iou_matrix
from mtl_ray.tasks.charts import BACKGROUND, Confusion
from mtl_ray.tasks.detection.coco import Scored

MIN_IOU = 0.5
MIN_SCORE = 0.3
"""Detections with a lower score are left out; pictures leave them out too."""


def confusion(images: Sequence[Scored], names: tuple[str, ...]) -> Confusion:
    """Counts objects by annotated and predicted class; the last row and column are the background.

    Detections with a score of at least 0.3 choose, best first, the free object that they overlap most, at least by IoU 0.5, among
    equal ones one of their own class. What overlaps no free object was found in the background, an object that nothing chose was
    taken for background. Objects that are ``crowd`` or ``difficult`` count neither way, and neither does what was found on them.
    """
    none = len(names)
    counts = np.zeros((none + 1, none + 1), np.int64)
    for image in images:
        shown = np.flatnonzero(image.found.scores >= MIN_SCORE)
        shown = shown[np.argsort(-image.found.scores[shown], kind="stable")]
        found = image.found.classes[shown]
        chosen, ignored = _choose(image, shown)
        truth = np.where(chosen >= 0, np.append(image.truth.classes, none)[chosen], none)
        np.add.at(counts, (truth[~ignored], found[~ignored]), 1)
        missed = ~(image.truth.crowd | image.truth.difficult)
        missed[chosen[chosen >= 0]] = False
        counts[:none, none] += np.bincount(image.truth.classes[missed], minlength=none)
    return Confusion(names=(*names, BACKGROUND), counts=counts, unit="objects", note=f"IoU {MIN_IOU:g}, score {MIN_SCORE:g}")


def _choose(image: Scored, shown: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Of each detection (N,) the object that it chose (-1: none), and whether it counts neither way."""
    truth = image.truth
    chosen, ignored = np.full(len(shown), -1), np.zeros(len(shown), np.bool_)
    if len(truth) == 0 or len(shown) == 0:
        return chosen, ignored
    overlap = iou_matrix(image.found.boxes_xyxy[shown], truth.boxes_xyxy).astype(np.float64)
    likeness = np.where(overlap >= MIN_IOU, overlap, -1.0)
    likeness += 1e-9 * (image.found.classes[shown][:, None] == truth.classes[None])
    need_not = truth.crowd | truth.difficult
    for n, row in enumerate(likeness):
        best = int(np.where(need_not, -1.0, row).argmax())
        if row[best] > 0 and not need_not[best]:
            chosen[n] = best
            likeness[:, best] = -1.0
        else:
            ignored[n] = bool((row[need_not] > 0).any())
    return chosen, ignored
