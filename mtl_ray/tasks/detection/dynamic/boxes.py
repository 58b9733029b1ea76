"""Boxes and losses of the heads with dynamic assignment."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mtl_ray.tasks.detection.dynamic.assign import Assigned

SMALLEST = 1e-6
"""The least area that something is divided by."""


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


def quality_focal_loss(logits: Tensor, quality: Tensor, beta: float) -> Tensor:
    """Quality focal loss (Li et al. 2020, eq. 2) of logits with a quality in [0, 1]."""
    distance = (quality - logits.sigmoid()).abs().pow(beta)
    return F.binary_cross_entropy_with_logits(logits, quality, reduction="none") * distance


def matched_boxes(assigned: Assigned, targets: Mapping[str, Tensor]) -> Tensor:
    """(B, N, 4) xyxy, the box of each candidate's object."""
    return targets["boxes"].gather(1, assigned.object[..., None].expand(-1, -1, 4))


def matched_classes(assigned: Assigned, targets: Mapping[str, Tensor], count: int) -> Tensor:
    """(B, N, count) float32, 1 at the class of each candidate's object; 0 without an object."""
    classes = targets["classes"].gather(1, assigned.object).clamp(min=0)
    return F.one_hot(classes, count).float() * assigned.positive[..., None]


def target_arrays(
    assigned: Assigned, targets: Mapping[str, Tensor], classes: int, counted: Tensor
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
