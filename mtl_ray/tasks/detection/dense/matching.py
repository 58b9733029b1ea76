"""Which object each anchor learns by the IoU of both, as in RetinaNet and region proposals."""

from typing import NamedTuple

import torch
from torch import Tensor


class AnchorMatches(NamedTuple):
    """For each of N anchors of B images: its object int64 (B, N), and whether it is positive or
    negative, bool (B, N).
    """

    object: Tensor
    positive: Tensor
    negative: Tensor


def match_anchors(
    anchors: Tensor,
    boxes: Tensor,
    wanted: Tensor,
    high: float = 0.5,
    low: float = 0.4,
    valid: Tensor | None = None,
    forced_to: str = "first",
) -> AnchorMatches:
    """Matches anchors to the objects that they overlap enough, and each object to its best anchors
    (Lin et al. 2017, section 4).

    One object of each image at a time is compared with all anchors, so that no (B, N, M) tensor is
    needed.

    Args:
        anchors: (N, 4) xyxy.
        boxes: (B, M, 4) xyxy of the same units.
        wanted: (B, M) bool, the boxes to learn.
        high: IoU from which an anchor is positive.
        low: IoU below which it is negative; between the two it is ignored.
        valid: (B, N) bool, the anchors that count; all by default. The others are neither positive
            nor negative.
        forced_to: the object of an anchor that is the best one of objects: the ``first`` or the
            ``last`` of these, or the one that it overlaps most (``own``).
    """
    shape, device = (wanted.shape[0], anchors.shape[0]), boxes.device
    # All (B, N): the best IoU so far and its object; whether an object forces the anchor, and
    # which.
    best = torch.full(shape, -torch.inf, dtype=boxes.dtype, device=device)
    match, forced_match = torch.zeros((2, *shape), dtype=torch.int32, device=device)
    forced, chosen, new = torch.zeros((3, *shape), dtype=torch.bool, device=device)
    overlaps = AnchorOverlaps(anchors, shape[0])
    for place, (box, is_wanted) in enumerate(
        zip(boxes.unbind(dim=1), wanted.unbind(dim=1), strict=True)
    ):
        overlap = overlaps(box).masked_fill_(~is_wanted[:, None], -1.0)  # (B, N)
        if valid is not None:
            overlap.masked_fill_(~valid, -1.0)
        # the first object of equal overlaps
        match.masked_fill_(torch.gt(overlap, best, out=chosen), place)
        torch.maximum(overlap, best, out=best)
        top = overlap.amax(dim=1, keepdim=True)  # (B, 1)
        torch.eq(overlap, top.masked_fill_(top <= 0, torch.inf), out=chosen)
        # chosen and not yet forced
        torch.gt(chosen, forced, out=new)
        forced_match.masked_fill_(chosen if forced_to == "last" else new, place)
        forced.logical_or_(chosen)
    positive = (best >= high) | forced
    negative = (best < low) & ~positive
    if valid is not None:
        negative &= valid
    if forced_to != "own":
        match = torch.where(forced, forced_match, match)
    return AnchorMatches(match.long(), positive, negative)


class AnchorOverlaps:
    """IoU of N anchors and one box of each of B images, bit for bit equal to torchvision's
    ``box_iou``.

    Three (B, N) buffers are used again for each object: on a CPU, new ones would cost several times
    as much as the arithmetic.
    """

    def __init__(self, anchors: Tensor, batch: int) -> None:
        self.left, self.top, self.right, self.bottom = anchors.t().contiguous()
        self.areas = (self.right - self.left) * (self.bottom - self.top)
        self.width, self.height, self.other = torch.empty(
            (3, batch, anchors.shape[0]), dtype=anchors.dtype, device=anchors.device
        )

    def __call__(self, boxes: Tensor) -> Tensor:
        """(B, 4) xyxy -> (B, N), valid until the next call."""
        left, top, right, bottom = boxes[..., None].unbind(dim=1)  # each (B, 1)
        width = torch.minimum(self.right, right, out=self.width)
        width.sub_(torch.maximum(self.left, left, out=self.other)).clamp_(min=0)
        height = torch.minimum(self.bottom, bottom, out=self.height)
        height.sub_(torch.maximum(self.top, top, out=self.other)).clamp_(min=0)
        shared = width.mul_(height)  # (B, N), the area of the intersection
        return shared.div_(
            torch.add(self.areas, (right - left) * (bottom - top), out=self.other).sub_(shared)
        )
