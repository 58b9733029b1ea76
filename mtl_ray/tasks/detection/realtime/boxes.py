"""Boxes of the real-time heads: centre, width and height as parts of the canvas, and D-FINE's
distributions over the shifts of their edges.

D-FINE: Peng et al. 2024, https://arxiv.org/abs/2410.13842, section 4.1.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mtl_ray.models.head import Context
from mtl_ray.tasks.detection.query.matcher import SetTargets

SMALLEST_ANCHOR = 0.05
"""Side of the boxes that tokens of the finest level start from, as a part of the canvas."""
SMALLEST = 1e-5
"""Coordinates are kept this far from 0 and 1 where their logits are computed."""


def logits_of(parts: Tensor) -> Tensor:
    """The inverse of the sigmoid, limited to that of ``SMALLEST``."""
    parts = parts.clamp(0, 1)
    return (parts.clamp(min=SMALLEST) / (1 - parts).clamp(min=SMALLEST)).log()


def centred(corners: Tensor) -> Tensor:
    """(..., 4) xyxy -> centre, width, height."""
    low, high = corners[..., :2], corners[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def overlaps(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and GIoU (Rezatofighi et al. 2019), each (...), of xyxy boxes (..., 4) that broadcast.

    Boxes without area have IoU 0 with each other, not NaN.
    """
    tiny = torch.finfo(torch.float32).tiny
    common = (
        torch.minimum(first[..., 2:], second[..., 2:])
        - torch.maximum(first[..., :2], second[..., :2])
    ).clamp(min=0)
    around = (
        torch.maximum(first[..., 2:], second[..., 2:])
        - torch.minimum(first[..., :2], second[..., :2])
    ).clamp(min=0)
    shared = common[..., 0] * common[..., 1]
    hull = around[..., 0] * around[..., 1]
    union = _areas(first) + _areas(second) - shared
    iou = shared / union.clamp(min=tiny)
    return iou, iou - (hull - union) / hull.clamp(min=tiny)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def shift_steps(bins: int, up: Tensor, curvature: Tensor) -> Tensor:
    """The shifts (bins + 1,) that the bins stand for, finer near 0 (eq. 4): those of the first and
    the last are twice as large as of their neighbours.
    """
    bound = up.abs() * curvature.abs()  # (1,)
    powers = torch.arange(1, bins // 2, device=up.device) * (2.0 / (bins - 2))
    inner = (bound + 1) ** powers - 1  # (bins / 2 - 1,), > 0
    return torch.cat([-2 * bound, -inner.flip(0), torch.zeros_like(bound), inner, 2 * bound])


def expected_shifts(corners: Tensor, steps: Tensor) -> Tensor:
    """Logits (..., 4, bins + 1) of the distributions -> expected shifts (..., 4)."""
    return (corners.float().softmax(dim=-1) * steps).sum(dim=-1)


def shifted_boxes(anchors: Tensor, shifts: Tensor, curvature: Tensor) -> Tensor:
    """Boxes (..., 4) from anchors (..., 4) and the shifts (..., 4) of their left, top, right and
    bottom edges (eq. 2).
    """
    unit = anchors[..., 2:] / curvature.abs()
    low, high = shifts[..., :2], shifts[..., 2:]
    half = 0.5 * curvature.abs()
    return centred(
        torch.cat(
            [anchors[..., :2] - (half + low) * unit, anchors[..., :2] + (half + high) * unit],
            dim=-1,
        )
    )


def shift_targets(anchors: Tensor, boxes: Tensor, steps: Tensor, curvature: Tensor) -> Tensor:
    """The shifts that turn anchors into boxes, as places among the bins.

    Args:
        anchors: (..., 4) centre, width, height.
        boxes: (..., 4) xyxy.
        steps: see ``shift_steps``.
        curvature: (1,).

    Returns:
        float32 (..., 4) in [0, bins]: 2.3 is .7 of bin 2 and .3 of bin 3.
    """
    unit = anchors[..., 2:] / curvature.abs() + 1e-16
    low = (anchors[..., :2] - boxes[..., :2]) / unit
    high = (boxes[..., 2:] - anchors[..., :2]) / unit
    shifts = torch.cat([low, high], dim=-1) - 0.5 * curvature.abs()  # (..., 4)
    shifts = torch.maximum(torch.minimum(shifts, steps[-1]), steps[0])
    left = (torch.searchsorted(steps, shifts.contiguous(), right=True) - 1).clamp(0, len(steps) - 2)
    return left + (shifts - steps[left]) / (steps[left + 1] - steps[left])


def distribution_loss(corners: Tensor, places: Tensor) -> Tensor:
    """Cross entropy (..., 4) between distributions (..., 4, bins + 1), as logits, and the two bins
    next to places (..., 4) in [0, bins].
    """
    left = places.long().clamp(max=corners.shape[-1] - 2)
    right_part = places - left
    logs = F.log_softmax(corners, dim=-1)
    return -(
        logs.gather(-1, left[..., None])[..., 0] * (1 - right_part)
        + logs.gather(-1, left[..., None] + 1)[..., 0] * right_part
    )


def distillation_loss(corners: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence (...) of a layer's distributions from the last layer's, both as
    logits (..., bins + 1), times the square of the temperature.
    """
    student = F.log_softmax(corners / temperature, dim=-1)
    wanted = F.log_softmax(teacher.detach() / temperature, dim=-1)
    return F.kl_div(student, wanted, reduction="none", log_target=True).sum(-1) * temperature**2


def canvas_targets(targets: Mapping[str, Tensor], context: Context) -> SetTargets:
    """The objects of a batch in parts of the whole canvas; crowd regions and images that are not
    annotated have none. There is room for at least one object.
    """
    boxes, room = targets["boxes"], int(targets["boxes"].shape[1] == 0)
    height, width = context.canvas_hw
    size = boxes.new_tensor([width, height, width, height]).expand(boxes.shape[0], 4)
    present = targets["present"] & ~targets["crowd"] & targets["annotated"][:, None]
    return SetTargets(
        classes=F.pad(targets["classes"], (0, room)),
        boxes=F.pad(centred(boxes.float() / size[:, None]), (0, 0, 0, room)),
        present=F.pad(present, (0, room)),
        size=size,
    )


def token_anchors(sizes: Sequence[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """The boxes that tokens start from, as logits float32 (T, 4), and which tokens count, bool
    (T, 1): not those next to the border of the canvas, whose logits are the largest number.
    """
    boxes = []
    for level, (height, width) in enumerate(sizes):
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        x, y = x[None].expand(height, -1), y[:, None].expand(-1, width)
        side = torch.full_like(x, SMALLEST_ANCHOR * 2**level)
        boxes.append(torch.stack([x, y, side, side], dim=-1).flatten(0, 1))
    parts = torch.cat(boxes)  # (T, 4)
    valid = ((parts > 0.01) & (parts < 0.99)).all(dim=1, keepdim=True)
    logits = (parts / (1 - parts)).log()
    return torch.where(valid, logits, torch.finfo(torch.float32).max), valid
