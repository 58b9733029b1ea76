"""Which anchors answer for which objects in RetinaNet."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou


class Matches(NamedTuple):
    """For each of N anchors of B images: the object (B, N), whether it is to find it, whether it is to find nothing (bool)."""

    object: Tensor
    positive: Tensor
    negative: Tensor


def match_by_overlap(anchors: Tensor, boxes: Tensor, wanted: Tensor, high: float = 0.5, low: float = 0.4) -> Matches:
    """Anchors that overlap an object enough are its, and the best anchors of each object in any case (Lin et al. 2017, section 4).

    Args:
        anchors: (N, 4) xyxy.
        boxes: (B, M, 4) xyxy of the same units.
        wanted: (B, M) bool, which boxes are to be learnt.
        high: IoU from which an anchor is positive.
        low: IoU below which it is negative; between the two it is neither.
    """
    overlap = box_iou(anchors.expand(boxes.shape[0], -1, -1), boxes)
    overlap = torch.where(wanted[:, None], overlap, -1.0)
    best, match = overlap.max(dim=2)
    top = overlap.amax(dim=1, keepdim=True)
    forced = (overlap == top) & (top > 0)
    match = torch.where(forced.any(dim=2), forced.int().argmax(dim=2), match)
    positive = (best >= high) | forced.any(dim=2)
    return Matches(match, positive, (best < low) & ~positive)
