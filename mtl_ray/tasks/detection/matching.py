"""Which anchors answer for which objects in RetinaNet."""

from typing import NamedTuple

import torch
from torch import Tensor


class Matches(NamedTuple):
    """For each of N anchors of B images: the object (B, N), whether it must find it, whether it must find nothing (bool)."""

    object: Tensor
    positive: Tensor
    negative: Tensor


def match_by_overlap(anchors: Tensor, boxes: Tensor, wanted: Tensor, high: float = 0.5, low: float = 0.4) -> Matches:
    """Matches anchors to the objects that they overlap enough, and the best anchors of each in any case (Lin et al. 2017, section 4).

    One object of each image at a time meets all anchors: its best anchor is then known at once, and no (B, N, M) is held.

    Args:
        anchors: (N, 4) xyxy.
        boxes: (B, M, 4) xyxy of the same units.
        wanted: (B, M) bool, which boxes are to be learnt.
        high: IoU from which an anchor is positive.
        low: IoU below which it is negative; between the two it is neither.
    """
    shape, device = (wanted.shape[0], anchors.shape[0]), boxes.device
    best = torch.full(shape, -torch.inf, dtype=boxes.dtype, device=device)
    match, forced_match = torch.zeros((2, *shape), dtype=torch.int32, device=device)
    forced, chosen, new = torch.zeros((3, *shape), dtype=torch.bool, device=device)
    overlaps = Overlaps(anchors, shape[0])
    for place, (box, is_wanted) in enumerate(zip(boxes.unbind(dim=1), wanted.unbind(dim=1), strict=True)):
        overlap = overlaps(box).masked_fill_(~is_wanted[:, None], -1.0)
        match.masked_fill_(torch.gt(overlap, best, out=chosen), place)  # of equal overlaps the first object's
        torch.maximum(overlap, best, out=best)
        top = overlap.amax(dim=1, keepdim=True)
        torch.eq(overlap, top.masked_fill_(top <= 0, torch.inf), out=chosen)
        forced_match.masked_fill_(torch.gt(chosen, forced, out=new), place)  # chosen and not yet forced
        forced.logical_or_(chosen)
    positive = (best >= high) | forced
    return Matches(torch.where(forced, forced_match, match).long(), positive, (best < low) & ~positive)


class Overlaps:
    """IoU of N anchors and one box of each of B images, equal to torchvision's ``box_iou`` bit for bit.

    Anchors lie side by side, and the same three (B, N) buffers are filled for each object: on a CPU, fresh ones would cost several times
    as much as the arithmetic.
    """

    def __init__(self, anchors: Tensor, batch: int) -> None:
        self.left, self.top, self.right, self.bottom = anchors.t().contiguous()
        self.areas = (self.right - self.left) * (self.bottom - self.top)
        self.width, self.height, self.other = torch.empty((3, batch, anchors.shape[0]), dtype=anchors.dtype, device=anchors.device)

    def __call__(self, boxes: Tensor) -> Tensor:
        """(B, 4) xyxy -> (B, N), valid until the next call."""
        left, top, right, bottom = boxes[..., None].unbind(dim=1)  # each (B, 1)
        width = torch.minimum(self.right, right, out=self.width)
        width.sub_(torch.maximum(self.left, left, out=self.other)).clamp_(min=0)
        height = torch.minimum(self.bottom, bottom, out=self.height)
        height.sub_(torch.maximum(self.top, top, out=self.other)).clamp_(min=0)
        shared = width.mul_(height)
        return shared.div_(torch.add(self.areas, (right - left) * (bottom - top), out=self.other).sub_(shared))
