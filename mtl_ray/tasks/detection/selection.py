"""The selection of detections in numpy, for bundles of the layout ``raw``: equal to
``candidates.select_detections`` in the network.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mtl_ray.tasks.detection.options import Selection

Chosen = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
"""Boxes (K, 4), scores (K,), classes (K,); best first."""


def select_candidates(
    candidates: NDArray[np.float32], rule: "Selection", sizes: Sequence[int] = ()
) -> Chosen:
    """Selects detections from candidates.

    Args:
        candidates: (N, 5 + C) float32 as x1, y1, x2, y2, objectness, class scores.
        rule: thresholds and how many to keep.
        sizes: the number of candidates of each level, if pairs are ranked by level; else all are
            of one level.
    """
    boxes = candidates[:, :4]
    scores = _scores(candidates, rule)
    scores = scores * _ranked(candidates, scores, rule, sizes)
    if rule.best_class or rule.class_agnostic:
        scores = np.where(np.arange(scores.shape[1]) == scores.argmax(1)[:, None], scores, 0)
    classes, rows = np.nonzero(scores.T > 0)
    values = scores[rows, classes]
    groups = np.zeros_like(classes) if rule.class_agnostic else classes
    if rule.suppression in ("soft_nms", "matrix_nms"):
        best = np.argsort(-values, kind="stable")[: _most_lowered(len(boxes), rule, len(sizes))]
        lower = select_soft_nms if rule.suppression == "soft_nms" else select_matrix_nms
        chosen, lowered = lower(boxes[rows[best]], values[best], groups[best], rule)
        return boxes[rows[best[chosen]]], lowered, classes[best[chosen]].astype(np.int64)
    kept = np.arange(len(values))
    if rule.suppression == "nms":
        parts = np.split(kept, np.flatnonzero(np.diff(groups)) + 1)  # groups ascend
        found = [part[suppress_boxes(boxes[rows[part]], values[part], rule)] for part in parts]
        kept = np.sort(np.concatenate([np.empty(0, np.int64), *found]))
    chosen = kept[np.argsort(-values[kept], kind="stable")][: rule.max_detections]
    return boxes[rows[chosen]], values[chosen], classes[chosen].astype(np.int64)


def _most_lowered(count: int, rule: "Selection", levels: int) -> int:
    """How many pairs of ``count`` candidates soft_nms and matrix_nms compare."""
    if rule.suppression == "matrix_nms":
        return rule.most_compared
    if rule.candidates is None:
        return count + rule.max_detections
    if rule.rank == "pair":
        return max(levels, 1) * rule.candidates + rule.max_detections
    return max(rule.candidates, rule.max_detections)


def _scores(candidates: NDArray[np.float32], rule: "Selection") -> NDArray[np.float32]:
    scores = candidates[:, 4:5] * candidates[:, 5:]
    return scores if rule.score == "product" else np.sqrt(scores)


def _ranked(
    candidates: NDArray[np.float32],
    scores: NDArray[np.float32],
    rule: "Selection",
    sizes: Sequence[int],
) -> NDArray[np.bool_]:
    """(N, C), the pairs above the threshold that are among the best ones."""
    ranked = scores if rule.threshold_on == "score" else candidates[:, 5:]
    real = np.greater(ranked, rule.score_threshold)
    if rule.candidates is None:
        return real
    if rule.rank == "candidate":
        best = np.argsort(-ranked.max(axis=1, initial=0), kind="stable")
        real[best[max(rule.candidates, rule.max_detections) :]] = False
        return real
    if rule.best_class:
        real &= np.arange(ranked.shape[1]) == (ranked * real).argmax(1)[:, None]
    for level in np.split(np.arange(len(ranked)), np.cumsum(sizes)[:-1] if sizes else []):
        best = np.argsort(-(ranked * real)[level], axis=None, kind="stable")
        rows, classes = np.divmod(best[rule.candidates :], ranked.shape[1])
        real[level[rows], classes] = False
    return real & (candidates[:, 2:4] > candidates[:, :2]).all(axis=1, keepdims=True)


def suppress_boxes(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], rule: "Selection"
) -> NDArray[np.int64]:
    """Indices of the boxes (N, 4) that no better one overlaps by more than the IoU threshold, best
    first.
    """
    order = np.argsort(-scores, kind="stable")
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept: list[int] = []
    while order.size and len(kept) < rule.max_detections:
        first, order = order[0], order[1:]
        kept.append(int(first))
        corner = np.minimum(boxes[first, 2:], boxes[order, 2:]) - np.maximum(
            boxes[first, :2], boxes[order, :2]
        )
        shared = np.prod(np.maximum(corner, 0), axis=1)
        order = order[~(shared > rule.iou_threshold * (areas[first] + areas[order] - shared))]
    return np.array(kept, np.int64)


def select_soft_nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    groups: NDArray[np.int64],
    rule: "Selection",
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """See ``suppression.soft_nms``: indices and lowered scores, best first; boxes of one group
    lower each other.
    """
    left = scores.copy()
    chosen: list[int] = []
    values: list[float] = []
    while len(chosen) < rule.max_detections and (left > 0).any():
        first = int(left.argmax())
        chosen.append(first)
        values.append(float(left[first]))
        overlap = _overlaps(boxes[first : first + 1], boxes)[0]
        if rule.decay == "gaussian":
            factor = np.exp(-(overlap**2) / np.float32(rule.width))
        else:
            factor = np.where(overlap >= rule.iou_threshold, 1 - overlap, 1)
        left = left * np.where(groups == groups[first], factor, 1).astype(np.float32)
        left[(left < rule.min_score)] = 0
        left[first] = 0
    return np.array(chosen, np.int64), np.array(values, np.float32)


def select_matrix_nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    groups: NDArray[np.int64],
    rule: "Selection",
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """See ``suppression.matrix_nms``; the boxes are ordered, best first."""
    overlap = np.triu(_overlaps(boxes, boxes), 1) * (groups[:, None] == groups)
    own = overlap.max(axis=0, initial=0)[:, None]
    if rule.decay == "gaussian":
        factor = np.exp(-np.float32(rule.width) * (overlap**2 - own**2))
    else:
        factor = (1 - overlap) / np.maximum(1 - own, np.float32(1e-6))
    lowered = (scores * factor.min(axis=0, initial=1)).astype(np.float32)
    lowered[lowered < rule.min_score] = 0
    order = np.argsort(-lowered, kind="stable")[: rule.max_detections]
    order = order[lowered[order] > 0]
    return order, lowered[order]


def _overlaps(some: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU (P, Q) of boxes (P, 4) and (Q, 4); 0 of boxes without area."""
    sides = [
        np.maximum(
            np.minimum(some[:, None, axis + 2], others[None, :, axis + 2])
            - np.maximum(some[:, None, axis], others[None, :, axis]),
            0,
        )
        for axis in (0, 1)
    ]
    area = sides[0] * sides[1]
    sizes = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (some, others)]
    union = sizes[0][:, None] + sizes[1] - area
    return np.asarray(area / np.maximum(union, np.float32(1e-9)), np.float32)
