"""The losses of dense heads for each candidate; all take and give float32 without reduction."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

EPS = 1e-6
"""The least area of a union, in the units of the boxes."""


def focal_loss(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Focal loss with alpha 0.25 and gamma 2 (Lin et al. 2017, eq. 5), summed over known classes.

    Args:
        logits: (B, N, C).
        labels: int64 (B, N), C for background.
        known: bool (B, C), the classes that the dataset of each image annotates.

    Returns:
        (B, N).
    """
    losses: Tensor = sigmoid_focal_loss(
        logits, one_hot(labels, logits.shape[2]), alpha=0.25, gamma=2.0
    )
    return losses.masked_fill(~known[:, None], 0).sum(dim=2)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels (B, N), C for background -> float32 (B, N, C)."""
    return F.one_hot(labels, classes + 1)[..., :classes].float()


def quality_focal_loss(logits: Tensor, labels: Tensor, quality: Tensor, known: Tensor) -> Tensor:
    """Quality focal loss with beta 2 (Li et al. 2020, generalized focal loss, eq. 4): the target of
    the class of a candidate is its quality instead of 1.

    Args:
        logits: (B, N, C).
        labels: int64 (B, N), C for background.
        quality: (B, N), IoU of the predicted box and the object.
        known: bool (B, C), as that of ``focal_loss``.

    Returns:
        (B, N).
    """
    target = one_hot(labels, logits.shape[2]) * quality[..., None]  # (B, N, C)
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    losses = losses * (target - logits.sigmoid()).square()
    return losses.masked_fill(~known[:, None], 0).sum(dim=2)


def distribution_focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Distribution focal loss (Li et al. 2020, eq. 6): the two bins next to the target share its
    probability.

    Args:
        logits: (..., bins).
        target: (...), in [0, bins - 1).

    Returns:
        (...).
    """
    log = F.log_softmax(logits, dim=-1)
    left = target.long()  # (...)
    share = target - left  # of the right bin
    losses = -log.gather(-1, torch.stack([left, left + 1], dim=-1))  # (..., 2)
    return losses[..., 0] * (1 - share) + losses[..., 1] * share


def box_iou_loss(boxes: Tensor, targets: Tensor, kind: str) -> Tensor:
    """The loss of boxes (..., 4) xyxy: ``iou`` is -log(IoU) (Yu et al. 2016, UnitBox), ``giou`` is
    1 - GIoU (Rezatofighi et al. 2019, algorithm 2).
    """
    overlap, union = intersection_union(boxes, targets)
    iou = overlap / union
    if kind == "iou":
        return -iou.clamp(min=EPS).log()
    outer = torch.maximum(boxes[..., 2:], targets[..., 2:]) - torch.minimum(
        boxes[..., :2], targets[..., :2]
    )
    area = outer.clamp(min=0).prod(dim=-1).clamp(min=EPS)
    return 1 - iou + (area - union) / area


def paired_iou(boxes: Tensor, targets: Tensor) -> Tensor:
    """IoU (...) of boxes (..., 4) and targets (..., 4), xyxy."""
    overlap, union = intersection_union(boxes, targets)
    return overlap / union


def intersection_union(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The areas of intersection and union, each (...), of boxes (..., 4) xyxy."""
    sides = torch.minimum(boxes[..., 2:], targets[..., 2:]) - torch.maximum(
        boxes[..., :2], targets[..., :2]
    )
    overlap = sides.clamp(min=0).prod(dim=-1)
    both = [(each[..., 2:] - each[..., :2]).prod(dim=-1) for each in (boxes, targets)]
    return overlap, (both[0] + both[1] - overlap).clamp(min=EPS)
