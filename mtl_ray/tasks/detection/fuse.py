"""Fuses the boxes of several models, or of several variants of an image: weighted boxes fusion
(Solovyev, Wang and Gabruseva 2021, https://arxiv.org/abs/1910.13302).

The boxes of one class of all models join clusters in the order of their scores: each joins the
cluster whose mean it overlaps most. The mean of a cluster weights its boxes by their scores. Its
score depends on how many models agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.boxes import iou_matrix
from mtl_ray.geometry.masks import decode_rle, encode_rle
from mtl_ray.tasks.detection.decode import Detections, SelectingHead
from mtl_ray.tasks.optional import FusionRule

Confidence = Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg"]

DEFAULT_IOU, MOST_IOU = 0.55, 0.95
"""From which IoU on boxes are one object if nothing else is asked, and the most for any head."""


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """The rule of the fusion.

    Attributes:
        weights: of each model; its scores are multiplied by it.
        iou: a box joins a cluster if it overlaps its mean by more than this.
        least: boxes with a lower score are ignored.
        confidence: the score of a cluster. avg: the mean of its boxes, reduced if it has fewer
            boxes than there are models. max: the best of them. box_and_model_avg: the mean by
            weight, times the share of the weight of the models that found it.
            absent_model_aware_avg: the mean by weight, with a score of 0 from each model that did
            not find it.
    """

    weights: tuple[float, ...]
    iou: float = DEFAULT_IOU
    least: float = 0.0
    confidence: Confidence = "avg"

    def __post_init__(self) -> None:
        if not self.weights or not all(0 < weight < np.inf for weight in self.weights):
            raise ValueError(
                f"the weights are {', '.join(map(str, self.weights)) or 'none'}; each model needs "
                "one above 0"
            )
        if not 0 < self.iou < 1:
            raise ValueError(f"the IoU threshold is {self.iou:g}; it must be between 0 and 1")
        if self.confidence not in get_args(Confidence):
            raise ValueError(
                f"there is no confidence {self.confidence!r}; there are "
                f"{', '.join(get_args(Confidence))}"
            )


def fuse(models: Sequence[Detections], rule: Fusion) -> Detections:
    """Fuses the detections of the models on one image; float64 boxes and scores, best first.

    If all models have masks or keypoints, a fused box has those of the best box of its cluster.

    Args:
        models: the detections of each; class numbers mean the same in all.
        rule: with a weight for each model.
    """
    assert len(models) == len(rule.weights)
    model = np.repeat(np.arange(len(models)), [len(found) for found in models])
    boxes = np.concatenate([np.zeros((0, 4)), *(found.boxes_xyxy for found in models)]).astype(
        np.float64
    )
    plain = np.concatenate([np.zeros(0), *(found.scores for found in models)]).astype(np.float64)
    classes = np.concatenate([np.zeros(0, np.int64), *(found.classes for found in models)])
    scores = plain * np.array(rule.weights)[model]
    order = np.argsort(-scores, kind="stable")
    order = order[(plain[order] >= rule.least) & (plain[order] > 0)]
    fused_boxes, fused_scores = [np.zeros((0, 4))], [np.zeros(0)]
    best_rows = [np.zeros(0, np.int64)]
    for label in np.unique(classes[order]):
        rows = order[classes[order] == label]
        cluster, means = _clusters(boxes[rows], scores[rows], rule.iou)
        fused_boxes.append(means)
        fused_scores.append(_confidence(cluster, scores[rows], model[rows], rule))
        best_rows.append(rows[np.unique(cluster, return_index=True)[1]])  # rows: best first
    joined: NDArray[Any] = np.concatenate(fused_boxes)
    score: NDArray[Any] = np.concatenate(fused_scores)
    best = np.argsort(-score, kind="stable")
    chosen = _together(models).select(np.concatenate(best_rows)[best])
    return replace(chosen, boxes_xyxy=joined[best], scores=score[best])


def suppress_models(models: Sequence[Detections], iou: float) -> Detections:
    """The detections of all models on one image, but those that a better one of their class
    overlaps by more than ``iou``; best first.
    """
    found = _together(models)
    kept: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for label in np.unique(found.classes):
        rows = np.flatnonzero(found.classes == label)
        rows = rows[np.argsort(-found.scores[rows], kind="stable")]
        overlaps = iou_matrix(found.boxes_xyxy[rows], found.boxes_xyxy[rows]) > iou
        alive = np.ones(len(rows), np.bool_)
        for place in range(len(rows)):
            if alive[place]:
                alive[place + 1 :] &= ~overlaps[place, place + 1 :]
        kept.append(rows[alive])
    left = np.sort(np.concatenate(kept))
    return found.select(left[np.argsort(-found.scores[left], kind="stable")])


def fused_variants(variants: Sequence[Detections], rule: FusionRule, head: object) -> Detections:
    """The detections of a head on several variants of one image as one; float32, best first, no
    more than the variant with the most has.
    """
    iou = _own_iou(head) if rule.iou is None else rule.iou
    if rule.fuse == "nms":
        found = suppress_models(variants, iou)
    else:
        found = fuse(variants, Fusion(weights=(1.0,) * len(variants), iou=iou))
    found = replace(
        found,
        boxes_xyxy=found.boxes_xyxy.astype(np.float32),
        scores=found.scores.astype(np.float32),
    )
    return found.select(np.arange(min(len(found), max(map(len, variants)))))


def _own_iou(head: object) -> float:
    """The IoU above which boxes are fused by default: at least the IoU up to which the suppression
    of the head keeps two boxes, since these may be two objects.
    """
    if isinstance(head, SelectingHead) and head.select.suppression == "nms":
        return max(DEFAULT_IOU, min(head.select.iou_threshold, MOST_IOU))
    return DEFAULT_IOU


def _together(models: Sequence[Detections]) -> Detections:
    """All detections, one model after the other, with masks and keypoints if all have them."""
    some = [each for each in models if len(each)] or list(models[:1])
    masks = [each.masks for each in some if each.masks is not None]
    points = [each.keypoints for each in some if each.keypoints is not None]
    return Detections(
        boxes_xyxy=np.concatenate([each.boxes_xyxy for each in some]),
        scores=np.concatenate([each.scores for each in some]),
        classes=np.concatenate([each.classes for each in some]),
        masks=tuple(mask for each in masks for mask in each) if len(masks) == len(some) else None,
        keypoints=np.concatenate(points) if len(points) == len(some) else None,
    )


def mirrored(found: Detections, height: int, width: int, mirror: Sequence[int]) -> Detections:
    """Detections of an image mirrored from left to right, on the image of (height, width) pixels.

    Args:
        found: on the mirrored image.
        height: pixels.
        width: pixels.
        mirror: for each keypoint the one that it becomes in a mirror.
    """
    boxes = found.boxes_xyxy.copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    masks = found.masks
    if masks is not None:
        masks = tuple(
            encode_rle(decode_rle(each, height, width)[:, ::-1]) if each else each for each in masks
        )
    points = found.keypoints
    if points is not None:
        points = points.copy()
        points[..., 0] = width - points[..., 0]
        if points.shape[1] == len(mirror):
            points = points[:, list(mirror)]
    return replace(found, boxes_xyxy=boxes, masks=masks, keypoints=points)


def _clusters(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], least: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The cluster (N,) that each box joins, in the order of the boxes, and the mean box (K, 4)
    of each cluster.
    """
    cluster = np.empty(len(boxes), np.int64)
    sums, totals, means = np.zeros_like(boxes), np.zeros(len(boxes)), np.zeros_like(boxes)
    count = 0
    for row, (box, score) in enumerate(zip(boxes, scores, strict=True)):
        near = iou_matrix(box[None], means[:count])[0]
        place = int(near.argmax()) if count and near.max() > least else count
        count = max(count, place + 1)
        cluster[row] = place
        sums[place] += score * box
        totals[place] += score
        means[place] = sums[place] / totals[place]
    return cluster, means[:count]


def _confidence(
    cluster: NDArray[np.int64], scores: NDArray[np.float64], model: NDArray[np.int64], rule: Fusion
) -> NDArray[np.float64]:
    weights = np.array(rule.weights)
    total, count = np.bincount(cluster, scores), np.bincount(cluster)
    if rule.confidence == "avg":
        return np.asarray(total / count * np.minimum(count, len(weights)) / weights.sum())
    if rule.confidence == "max":
        best = np.zeros(len(count))
        np.maximum.at(best, cluster, scores)
        return np.asarray(best / weights.max())
    weight = np.bincount(cluster, weights[model])
    found = np.zeros((len(count), len(weights)), np.bool_)
    found[cluster, model] = True
    if rule.confidence == "box_and_model_avg":
        return np.asarray(total / weight * (found @ weights) / weights.sum())
    return np.asarray(total / (weight + ~found @ weights))
