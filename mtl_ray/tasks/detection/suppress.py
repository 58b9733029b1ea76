"""Non-maximum suppression outside the graph, for bundles of the layout ``raw``."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mtl_ray.tasks.detection.config import Selection

Chosen = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
"""Boxes (K, 4), scores (K,), classes (K,); best first."""


def select(candidates: NDArray[np.float32], rule: "Selection") -> Chosen:
    """Chooses among candidates as ``nms.select`` does inside the network; the tests hold the two together.

    Args:
        candidates: (N, 5 + C) float32 as x1, y1, x2, y2, objectness, class scores; a box's score for a class is the product.
        rule: thresholds and how many to keep.
    """
    joint = candidates[:, 4:5] * candidates[:, 5:]
    best = np.argsort(-joint.max(axis=1, initial=0), kind="stable")[: max(rule.candidates, rule.max_detections)]
    boxes, joint = candidates[best, :4], joint[best]
    classes, rows = np.nonzero((joint > rule.score_threshold).T)
    scores = joint[rows, classes]
    groups = np.split(np.arange(len(classes)), np.flatnonzero(np.diff(classes)) + 1)  # np.nonzero gives classes in ascending order
    kept = [group[suppress(boxes[rows[group]], scores[group], rule)] for group in groups]
    left = np.sort(np.concatenate([np.empty(0, np.int64), *kept]))
    chosen = left[np.argsort(-scores[left], kind="stable")][: rule.max_detections]
    return boxes[rows[chosen]], scores[chosen], classes[chosen].astype(np.int64)


def suppress(boxes: NDArray[np.float32], scores: NDArray[np.float32], rule: "Selection") -> NDArray[np.int64]:
    """Indices of the boxes (N, 4) that no better one overlaps by more than the IoU threshold, best first."""
    order = np.argsort(-scores, kind="stable")
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept: list[int] = []
    while order.size and len(kept) < rule.max_detections:
        first, order = order[0], order[1:]
        kept.append(int(first))
        corner = np.minimum(boxes[first, 2:], boxes[order, 2:]) - np.maximum(boxes[first, :2], boxes[order, :2])
        shared = np.prod(np.maximum(corner, 0), axis=1)
        order = order[~(shared > rule.iou_threshold * (areas[first] + areas[order] - shared))]
    return np.array(kept, np.int64)
