"""Suppression of duplicates among the candidates of a detection head, in torch and in its graph.

In torch non-maximum suppression is torchvision's; in an exported graph it is ONNX's
NonMaxSuppression, which takes a batch of any size. The rest of the code is shared.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms

from mtl_ray.tasks.detection.options import Selection


class ScoredBoxes(NamedTuple):
    """What enters the suppression: ``boxes`` (B, k, 4) xyxy, ``scores`` (B, C, k), 0 where a pair
    does not count, ``candidate`` int64 (B, k): the index of each box among the candidates.
    """

    boxes: Tensor
    scores: Tensor
    candidate: Tensor


class Selected(NamedTuple):
    """Detections, best first: ``boxes`` (B, K, 4), ``scores`` (B, K), ``classes`` (B, K), zero in
    unused rows, and ``candidate`` (B, K), the index of each among the candidates.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    candidate: Tensor


def suppress_candidates(pool: ScoredBoxes, config: Selection, exporting: bool) -> Selected:
    """The best pairs that remain; ``pool`` has at least ``max_detections`` pairs."""
    boxes, scores, index = pool
    if config.best_class or config.class_agnostic:
        scores = scores * best_class(scores, dim=1)
    size = scores.shape[2]
    if config.suppression in ("soft_nms", "matrix_nms"):
        lower = soft_nms if config.suppression == "soft_nms" else matrix_nms
        values, places = lower(boxes, scores, config)
    else:
        kept = scores
        if config.suppression == "nms":
            find = _kept_in_onnx if exporting else _kept
            judged = scores.amax(dim=1, keepdim=True) if config.class_agnostic else scores
            kept = scores * find(boxes, judged, config)  # (B, C, k), 0 where suppressed
        values, places = kept.flatten(1).topk(config.max_detections)  # (B, K)
    real = values > 0
    rows = places % torch.full_like(places, size)  # a tensor: a graph may have any size
    return Selected(
        boxes.gather(1, rows[..., None].expand(-1, -1, 4)) * real[..., None],
        values * real,
        places // torch.full_like(places, size) * real,
        index.gather(1, rows) * real,
    )


def best_class(scores: Tensor, dim: int) -> Tensor:
    """1 at the best class (the first of equal ones) along ``dim``, else 0."""
    best = scores.argmax(dim=dim, keepdim=True)
    return torch.zeros_like(scores).scatter(dim, best, 1.0)


def _kept(boxes: Tensor, scores: Tensor, config: Selection) -> Tensor:
    """(B, C, k): 1 for each box that is not suppressed by a box of its image and class.

    Classes are processed one by one: ``batched_nms`` shifts boxes by class, which rounds
    coordinates, or also loops over classes.
    """
    kept = torch.zeros_like(scores)
    for image, label in (scores > 0).any(dim=2).nonzero().tolist():
        index = scores[image, label].nonzero().squeeze(1)
        left = nms(boxes[image, index], scores[image, label, index], config.iou_threshold)
        kept[image, label, index[left]] = 1.0
    return kept


def _kept_in_onnx(boxes: Tensor, scores: Tensor, config: Selection) -> Tensor:
    """The same as ``_kept`` by ONNX's operator
    (https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html).

    It gives rows (image, class, box), whose number is known at run time only. The declared one must
    be a size of its own: ONNX Runtime lets arrays of the same declared shape share their memory. A
    score may be below the threshold if that is on the class score.
    """
    limit = torch.tensor([config.max_detections], dtype=torch.int64)
    iou = torch.tensor([config.iou_threshold], dtype=torch.float32)
    least = config.score_threshold if config.threshold_on == "score" else 0.0
    lowest = torch.tensor([least], dtype=torch.float32)
    number = (scores > least).nonzero().shape[0]  # a size of its own while the graph is traced
    rows = torch.onnx.ops.symbolic(
        "NonMaxSuppression",
        (boxes, scores, limit, iou, lowest),
        dtype=torch.int64,
        shape=(number, 3),
        version=11,
    )
    ones = torch.ones_like(rows[:, 0], dtype=scores.dtype)
    return torch.zeros_like(scores).index_put((rows[:, 0], rows[:, 1], rows[:, 2]), ones)


def soft_nms(boxes: Tensor, scores: Tensor, config: Selection) -> tuple[Tensor, Tensor]:
    """Soft-NMS (Bodla et al. 2017, https://arxiv.org/abs/1704.04503, figure 2, eq. for s_i).

    The best remaining pair is taken ``max_detections`` times, and the others of its class are
    lowered: the number of steps is fixed, so that an exported graph has them all.

    Args:
        boxes: (B, k, 4).
        scores: (B, C, k), 0 where a pair does not count.
        config: the decay.

    Returns:
        Scores (B, K) and places (B, K) in the flattened (C, k).
    """
    size = scores.shape[2]
    left, where = scores.flatten(1).topk(size)  # (B, k): no level has more pairs than candidates
    width = torch.full_like(where, size)
    boxes = boxes.gather(1, (where % width)[..., None].expand(-1, -1, 4))
    classes = torch.zeros_like(where) if config.class_agnostic else where // width
    values, places = [], []
    for _ in range(config.max_detections):
        value, place = left.max(dim=1, keepdim=True)  # (B, 1)
        values.append(value)
        places.append(where.gather(1, place))
        overlap = _overlaps(boxes.gather(1, place[..., None].expand(-1, -1, 4)), boxes)[:, 0]
        if config.decay == "gaussian":
            factor = torch.exp(-overlap.square() / config.width)
        else:
            factor = torch.where(overlap >= config.iou_threshold, 1 - overlap, 1.0)
        left = left * torch.where(classes == classes.gather(1, place), factor, 1.0)
        left = (left * (left >= config.min_score)).scatter(1, place, 0.0)
    return torch.cat(values, dim=1), torch.cat(places, dim=1)


def matrix_nms(boxes: Tensor, scores: Tensor, config: Selection) -> tuple[Tensor, Tensor]:
    """Matrix NMS (Wang et al. 2020, https://arxiv.org/abs/2003.10152, eq. 5) on boxes; arguments
    and result as those of ``soft_nms``.
    """
    size = scores.shape[2]
    value, where = scores.flatten(1).topk(size)
    value, where = value[:, : config.most_compared], where[:, : config.most_compared]  # (B, P)
    width = torch.full_like(where, size)
    boxes = boxes.gather(1, (where % width)[..., None].expand(-1, -1, 4))
    overlap = _overlaps(boxes, boxes).triu(diagonal=1)  # (B, P, P): of i with the worse j
    if not config.class_agnostic:
        classes = where // width
        overlap = overlap * (classes[:, :, None] == classes[:, None])
    # How much i itself is suppressed at most: (B, P, 1)
    own = overlap.amax(dim=1)[..., None]
    if config.decay == "gaussian":
        factor = torch.exp(-config.width * (overlap.square() - own.square()))
    else:
        factor = (1 - overlap) / (1 - own).clamp(min=1e-6)
    lowered = value * factor.amin(dim=1)
    lowered = lowered * (lowered >= config.min_score)
    values, order = lowered.topk(config.max_detections)
    return values, where.gather(1, order)


def _overlaps(some: Tensor, others: Tensor) -> Tensor:
    """IoU (B, P, Q) of boxes (B, P, 4) and (B, Q, 4); 0 of boxes without area."""
    sides = []
    for axis in (0, 1):  # one at a time: half the memory
        end = torch.minimum(some[:, :, None, axis + 2], others[:, None, :, axis + 2])
        start = torch.maximum(some[:, :, None, axis], others[:, None, :, axis])
        sides.append((end - start).clamp(min=0))
    area = sides[0] * sides[1]  # (B, P, Q)
    sizes = [(boxes[..., 2:] - boxes[..., :2]).prod(dim=-1) for boxes in (some, others)]
    union = sizes[0][:, :, None] + sizes[1][:, None] - area
    return area / union.clamp(min=1e-9)
