"""Fuses the boxes of several models: weighted boxes fusion (Solovyev, Wang and Gabruseva 2021,
https://arxiv.org/abs/1910.13302).

The boxes of one class of all models join clusters in the order of their scores: each joins the
cluster whose mean it overlaps most. The mean of a cluster weights its boxes by their scores. Its
score depends on how many models agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.boxes import iou_matrix
from mtl_ray.tasks.detection.decode import Detections

Confidence = Literal["avg", "max", "box_and_model_avg", "absent_model_aware_avg"]


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
    iou: float = 0.55
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

    If all models have masks, a fused box has the mask of the best box of its cluster. Keypoints are
    dropped.

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
    fused_boxes, fused_scores, fused_classes, best_rows = (
        [np.zeros((0, 4))],
        [np.zeros(0)],
        [np.zeros(0, np.int64)],
        [np.zeros(0, np.int64)],
    )
    for label in np.unique(classes[order]):
        rows = order[classes[order] == label]
        cluster, means = _clusters(boxes[rows], scores[rows], rule.iou)
        fused_boxes.append(means)
        fused_scores.append(_confidence(cluster, scores[rows], model[rows], rule))
        fused_classes.append(np.full(len(means), label))
        best_rows.append(rows[np.unique(cluster, return_index=True)[1]])  # rows: best first
    joined: NDArray[Any] = np.concatenate(fused_boxes)
    score: NDArray[Any] = np.concatenate(fused_scores)
    best = np.argsort(-score, kind="stable")
    return Detections(
        boxes_xyxy=joined[best],
        scores=score[best],
        classes=np.concatenate(fused_classes)[best],
        masks=_masks(models, np.concatenate(best_rows)[best]),
    )


def _masks(models: Sequence[Detections], rows: NDArray[np.int64]) -> tuple[bytes, ...] | None:
    """The masks of some rows of all detections; None unless all detections have one."""
    found = [each.masks for each in models if len(each)]
    if not found or any(masks is None for masks in found):
        return None
    joined = [mask for masks in found for mask in masks or ()]
    return tuple(joined[row] for row in rows.tolist())


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
