"""Hungarian matching of predictions and objects (Carion et al. 2020, section 3.1).

The assignment itself is solved on the host. It stalls a GPU once in a step: the costs of all
decoder layers and images are computed on the device and copied in one transfer, which waits for the
forward pass. While the host solves, nothing else could run, since the losses need the result. The
result goes back in one transfer from pinned memory that nobody waits for. Everything behind it
works on (layers, B, queries) with masks, so that no further value is needed on the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_NEVER = 1e9
"""The cost instead of one that is no number: a diverged network must not stop the training."""


class SetTargets(NamedTuple):
    """The objects of a batch, M in each of B images.

    Attributes:
        classes: int64 (B, M).
        boxes: float32 (B, M, 4) cxcywh in parts of the image.
        present: bool (B, M), the objects that are learnt.
        size: float32 (B, 4), the unit in which IoUs are computed: width, height, width, height of
            the image in canvas pixels. IoUs do not depend on it, but for boxes that are
            almost empty.
    """

    classes: Tensor
    boxes: Tensor
    present: Tensor
    size: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchCosts:
    """Weights of the parts of the cost.

    Attributes:
        kind: of the class cost: minus the softmax probability (Carion et al. 2020), or the
            difference of the focal losses as object and as background (Zhu et al. 2021).
        class_weight, box_weight, iou_weight: of class, L1 and GIoU.
        alpha, gamma, eps: of the focal cost.
    """

    kind: Literal["softmax", "focal"]
    class_weight: float
    box_weight: float = 5.0
    iou_weight: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0
    eps: float = 1e-12


@torch.no_grad()
def matching_costs(logits: Tensor, boxes: Tensor, targets: SetTargets, costs: MatchCosts) -> Tensor:
    """The cost of each prediction for each object, float32 (G, B, Q, M).

    Args:
        logits: (G, B, Q, C) of G decoder layers.
        boxes: (G, B, Q, 4) cxcywh in parts of the image.
        targets: the objects.
        costs: kind and weights.
    """
    logits, boxes = logits.detach().float(), boxes.detach().float()
    index = targets.classes.clamp(min=0)[:, None].expand(*logits.shape[:3], -1)  # (G, B, Q, M)
    if costs.kind == "softmax":
        class_cost = -logits.softmax(dim=-1).gather(3, index)
    else:
        p = logits.gather(3, index).sigmoid()
        background = -(1 - p + costs.eps).log() * (1 - costs.alpha) * p**costs.gamma
        class_cost = -(p + costs.eps).log() * costs.alpha * (1 - p) ** costs.gamma - background
    wanted = targets.boxes.expand(boxes.shape[0], -1, -1, -1)  # (G, B, M, 4)
    size = targets.size[:, None]  # (B, 1, 4)
    iou = generalized_iou(
        (to_xyxy(boxes) * size)[..., :, None, :], (to_xyxy(wanted) * size)[..., None, :, :]
    )
    total = (
        costs.class_weight * class_cost
        + costs.box_weight * torch.cdist(boxes, wanted, p=1)
        - costs.iou_weight * iou
    )
    return total.nan_to_num(nan=_NEVER, posinf=_NEVER, neginf=-_NEVER)


@torch.no_grad()
def match_queries(costs: Sequence[Tensor], present: Tensor) -> list[Tensor]:
    """The assignment of least cost for each layer and image.

    An object is matched to one query; of more objects than queries some stay unmatched, those whose
    match costs most.

    Args:
        costs: each (G, B, Q, M) of G layers; G and Q may differ.
        present: bool (B, M), the objects to match.

    Returns:
        For each of ``costs`` int64 (G, B, Q): the object of each query, or -1.
    """
    device = present.device
    # the one transfer to the host
    flat = torch.cat([present.float().flatten(), *(cost.float().flatten() for cost in costs)])
    host = np.split(
        flat.cpu().numpy(), np.cumsum([present.numel(), *(cost.numel() for cost in costs)])[:-1]
    )
    places = [np.flatnonzero(row) for row in host[0].reshape(tuple(present.shape))]
    matched = [
        _solve(block.reshape(tuple(cost.shape)), places)
        for block, cost in zip(host[1:], costs, strict=True)
    ]
    joined = torch.from_numpy(np.concatenate([each.ravel() for each in matched]))
    if device.type == "cuda":
        joined = joined.pin_memory().to(device, non_blocking=True)
    parts = torch.split(joined, [each.size for each in matched])
    return [part.view(each.shape) for part, each in zip(parts, matched, strict=True)]


def _solve(costs: np.ndarray, places: Sequence[np.ndarray]) -> np.ndarray:
    """Costs (G, B, Q, M), the objects of each image -> int64 (G, B, Q), see ``match_queries``."""
    matched = np.full(costs.shape[:3], -1, np.int64)
    for layer, image in np.ndindex(*costs.shape[:2]):
        objects = places[image]
        if objects.size:
            queries, chosen = linear_sum_assignment(costs[layer, image][:, objects])
            matched[layer, image, queries] = objects[chosen]
    return matched


def to_xyxy(boxes: Tensor) -> Tensor:
    """Boxes (..., 4) cxcywh -> xyxy."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def generalized_iou(first: Tensor, second: Tensor, eps: float = 1e-6) -> Tensor:
    """GIoU of boxes (..., 4) xyxy of shapes that broadcast (Rezatofighi et al. 2019, algorithm
    1); areas are at least ``eps``.
    """
    left, top, right, bottom = first.unbind(dim=-1)
    other_left, other_top, other_right, other_bottom = second.unbind(dim=-1)
    shared = (torch.minimum(right, other_right) - torch.maximum(left, other_left)).clamp(min=0) * (
        torch.minimum(bottom, other_bottom) - torch.maximum(top, other_top)
    ).clamp(min=0)
    areas = (right - left) * (bottom - top) + (other_right - other_left) * (
        other_bottom - other_top
    )
    union = (areas - shared).clamp(min=eps)
    hull = (torch.maximum(right, other_right) - torch.minimum(left, other_left)).clamp(min=0) * (
        torch.maximum(bottom, other_bottom) - torch.minimum(top, other_top)
    ).clamp(min=0)
    hull = hull.clamp(min=eps)
    return shared / union - (hull - union) / hull
