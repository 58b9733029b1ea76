"""Dynamic label assignment: the candidates of an object follow from what the network predicts.

Both rules have a cost of each pair of a candidate and an object, and give each object its cheapest
candidates, more where more predictions overlap it. Only (B, M, N) tensors are needed for N
candidates, M objects and any number of classes: the cost of the wrong classes is a sum over all
classes less the object's own.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mtl_ray.tasks.detection.dynamic.matching import (
    AssignedCandidates,
    CandidatePoints,
    dynamic_k,
    pair_overlaps,
    wanted_objects,
)

EPSILON = 1e-7
"""Added to an overlap before its logarithm."""
OUTSIDE = 1e5
"""SimOTA's cost of a candidate that is not both in the box and near the centre of an object."""


@torch.no_grad()
def assign_sim_ota(
    scores: Tensor,
    boxes: Tensor,
    points: CandidatePoints,
    targets: Mapping[str, Tensor],
    *,
    radius: float,
    topk: int,
    overlap_cost: float,
    class_cost: float,
) -> AssignedCandidates:
    """SimOTA (Ge et al. 2021, YOLOX, section 2.3).

    Args:
        scores: (B, N, C), the square roots of objectness times class score, in [0, 1].
        boxes: (B, N, 4) predicted, xyxy in canvas pixels.
        points: the middles of the candidates' cells.
        targets: of the batch.
        radius: half the side of the centre region of an object, in strides.
        topk: candidates whose overlaps are summed to the number of candidates of an object.
        overlap_cost: weight of the logarithm of the overlap.
        class_cost: weight of the cross entropy of the scores.
    """
    gt_boxes, wanted = targets["boxes"], wanted_objects(targets)
    left, top, right, bottom = gt_boxes[..., None].unbind(dim=2)  # each (B, M, 1)
    x, y = points.xy.unbind(dim=1)  # each (N,)
    in_box = (x > left) & (y > top) & (x < right) & (y < bottom)  # (B, M, N)
    reach = radius * points.stride
    centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
    in_centre = (
        (x - (centre_x - reach) > 0)
        & (y - (centre_y - reach) > 0)
        & ((centre_x + reach) - x > 0)
        & ((centre_y + reach) - y > 0)
    )
    possible = ((in_box | in_centre) & wanted[..., None]).any(dim=1)  # (B, N)
    overlaps = pair_overlaps(boxes, gt_boxes)
    # binary cross entropies, whose logarithms are limited as torch limits them
    absent = -(-scores).log1p().clamp(min=-100)  # (B, N, C)
    own = _of_classes(scores, targets["classes"])  # (B, M, N)
    class_term = (absent.sum(dim=2)[:, None] + (-own).log1p().clamp(min=-100)) - own.log().clamp(
        min=-100
    )
    cost = class_term * class_cost - (overlaps + EPSILON).log() * overlap_cost
    cost = cost + ~(in_box & in_centre) * OUTSIDE
    return dynamic_k(cost, overlaps, wanted, possible, topk)


@torch.no_grad()
def assign_soft_labels(
    logits: Tensor,
    boxes: Tensor,
    points: CandidatePoints,
    targets: Mapping[str, Tensor],
    centres: Tensor,
    *,
    radius: float,
    topk: int,
    overlap_cost: float,
) -> AssignedCandidates:
    """Dynamic soft label assignment (Lyu et al. 2022, RTMDet, section 3.3, eq. 2 to 5).

    Args:
        logits: (B, N, C).
        boxes: (B, N, 4) predicted, xyxy in canvas pixels.
        points: the candidates.
        targets: of the batch.
        centres: (B, M, 2) x, y of the objects.
        radius: distance from the centre in strides from which the cost grows.
        topk: candidates whose overlaps are summed to the number of candidates of an object.
        overlap_cost: weight of the logarithm of the overlap.
    """
    gt_boxes, wanted = targets["boxes"], wanted_objects(targets)
    left, top, right, bottom = gt_boxes[..., None].unbind(dim=2)  # each (B, M, 1)
    x, y = points.xy.unbind(dim=1)  # each (N,)
    in_box = (x > left) & (y > top) & (x < right) & (y < bottom)  # (B, M, N)
    possible = (in_box & wanted[..., None]).any(dim=1)  # (B, N)
    centre_x, centre_y = centres[..., None].unbind(dim=2)
    distance = ((x - centre_x).square() + (y - centre_y).square()).sqrt() / points.stride
    overlaps = pair_overlaps(boxes, gt_boxes)
    share = logits.sigmoid()
    absent = F.softplus(logits) * share.square()  # (B, N, C), against a label of 0
    own = _of_classes(logits, targets["classes"])  # (B, M, N)
    soft = F.binary_cross_entropy_with_logits(own, overlaps, reduction="none")
    soft = soft * (overlaps - own.sigmoid()).square()  # eq. 2
    others = absent.sum(dim=2)[:, None] - _of_classes(absent, targets["classes"])
    cost = others + soft - (overlaps + EPSILON).log() * overlap_cost
    cost = cost + torch.pow(10.0, distance - radius)  # eq. 4
    return dynamic_k(cost, overlaps, wanted, possible, topk)


def _of_classes(values: Tensor, classes: Tensor) -> Tensor:
    """(B, N, C) at the class (B, M) of each object: (B, M, N)."""
    index = classes.clamp(min=0)[..., None].expand(-1, -1, values.shape[1])
    return values.transpose(1, 2).gather(1, index)
