"""Candidates and objects: overlaps, the choice of an object's candidates, and what these learn."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-6
"""The least area that something is divided by."""


class AssignedCandidates(NamedTuple):
    """What each of N candidates of B images learns.

    Attributes:
        object: int64 (B, N), the index of its object; 0 where it has none.
        positive: bool (B, N), whether it has one.
        overlap: float32 (B, N), the IoU of its predicted box with the object; 0 where it has none.
    """

    object: Tensor
    positive: Tensor
    overlap: Tensor


class CandidatePoints(NamedTuple):
    """The candidates of a head: ``xy`` (N, 2) in canvas pixels and ``stride`` (N,)."""

    xy: Tensor
    stride: Tensor


def wanted_objects(targets: Mapping[str, Tensor]) -> Tensor:
    """(B, M) bool, the objects to learn."""
    return targets["present"] & ~targets["crowd"] & targets["annotated"][:, None]


def dynamic_k(
    cost: Tensor, overlaps: Tensor, wanted: Tensor, possible: Tensor, topk: int
) -> AssignedCandidates:
    """Gives each object its cheapest candidates; a candidate that several objects get goes to the
    one to which it is cheapest.

    Args:
        cost: (B, M, N).
        overlaps: (B, M, N).
        wanted: (B, M) bool, the objects to learn.
        possible: (B, N) bool, the candidates that can be positive.
        topk: an object gets as many candidates as the sum of its ``topk`` best overlaps, rounded
            down, at least one.
    """
    free = possible[:, None] & wanted[..., None]  # (B, M, N)
    cost = cost.clamp(max=torch.finfo(cost.dtype).max).masked_fill(~free, torch.inf)
    k = min(topk, cost.shape[2])
    total = (overlaps * free).topk(k, dim=2).values.sum(dim=2)  # (B, M)
    number = total.int().clamp(min=1)
    best = cost.topk(k, dim=2, largest=False)
    taken = (torch.arange(k, device=cost.device) < number[..., None]) & best.values.isfinite()
    claimed = torch.zeros_like(free).scatter(2, best.indices, taken)  # (B, M, N)
    claims = claimed.sum(dim=1)  # (B, N)
    # among all objects, not only those that claim it
    chosen = torch.where(claims > 1, cost.argmin(dim=1), claimed.int().argmax(dim=1))
    positive = claims > 0
    overlap = overlaps.gather(1, chosen[:, None]).squeeze(1)
    return AssignedCandidates(chosen * positive, positive, torch.where(positive, overlap, 0.0))


def pair_overlaps(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """IoU (B, M, N) of boxes (B, N, 4) with objects (B, M, 4), both xyxy."""
    left, top, right, bottom = gt_boxes[..., None].unbind(dim=2)  # each (B, M, 1)
    x1, y1, x2, y2 = boxes[:, None].unbind(dim=3)  # each (B, 1, N)
    width = (torch.minimum(x2, right) - torch.maximum(x1, left)).clamp(min=0)
    height = (torch.minimum(y2, bottom) - torch.maximum(y1, top)).clamp(min=0)
    shared = width * height
    union = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - shared
    return shared / union.clamp(min=SMALLEST)


def box_overlaps(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of boxes with others, (..., 4) xyxy each ->
    (...) each.
    """
    corner = torch.maximum(boxes[..., :2], others[..., :2])
    shared = (torch.minimum(boxes[..., 2:], others[..., 2:]) - corner).clamp(min=0).prod(dim=-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
    other_areas = (others[..., 2:] - others[..., :2]).prod(dim=-1)
    union = (areas + other_areas - shared).clamp(min=SMALLEST)
    iou = shared / union
    hull_corner = torch.minimum(boxes[..., :2], others[..., :2])
    hull = (torch.maximum(boxes[..., 2:], others[..., 2:]) - hull_corner).clamp(min=0).prod(dim=-1)
    hull = hull.clamp(min=SMALLEST)
    return iou, iou - (hull - union) / hull


def binary_quality_focal_loss(logits: Tensor, quality: Tensor, beta: float) -> Tensor:
    """Quality focal loss (Li et al. 2020, eq. 2) of logits with a quality in [0, 1]."""
    distance = (quality - logits.sigmoid()).abs().pow(beta)
    return F.binary_cross_entropy_with_logits(logits, quality, reduction="none") * distance


def matched_boxes(assigned: AssignedCandidates, targets: Mapping[str, Tensor]) -> Tensor:
    """(B, N, 4) xyxy, the box of each candidate's object."""
    return targets["boxes"].gather(1, assigned.object[..., None].expand(-1, -1, 4))


def matched_classes(
    assigned: AssignedCandidates, targets: Mapping[str, Tensor], count: int
) -> Tensor:
    """(B, N, count) float32, 1 at the class of each candidate's object; 0 without an object."""
    classes = targets["classes"].gather(1, assigned.object).clamp(min=0)
    return F.one_hot(classes, count).float() * assigned.positive[..., None]


def target_arrays(
    assigned: AssignedCandidates, targets: Mapping[str, Tensor], classes: int, counted: Tensor
) -> dict[str, Tensor]:
    """What the losses compare with (see ``InspectedHead``), and ``target_scores`` (B, N), the
    overlaps of positive candidates.
    """
    of_object = targets["classes"].gather(1, assigned.object)
    labels = torch.where(assigned.positive, of_object, classes)
    return {
        "target_labels": torch.where(counted, labels, -1),
        "target_boxes": matched_boxes(assigned, targets) * assigned.positive[..., None],
        "target_scores": assigned.overlap,
    }
