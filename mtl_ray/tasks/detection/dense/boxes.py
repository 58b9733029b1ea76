"""How dense heads write boxes: distances from a point to the sides, or offsets from an anchor."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)
NO_SCALE = (1.0, 1.0, 1.0, 1.0)


def distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Left, top, right, bottom (..., 4) from points (..., 2) x, y to the sides of boxes (..., 4)
    xyxy; negative outside.
    """
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def around(points: Tensor, sides: Tensor) -> Tensor:
    """Boxes (..., 4) xyxy with ``sides`` (..., 4) left, top, right, bottom around points."""
    return torch.cat([points - sides[..., :2], points + sides[..., 2:]], dim=-1)


def centerness(sides: Tensor) -> Tensor:
    """Centerness (...) of points with positive distances (..., 4) to the sides of their object
    (Tian et al. 2019, FCOS, eq. 3).
    """
    low = torch.minimum(sides[..., :2], sides[..., 2:])
    high = torch.maximum(sides[..., :2], sides[..., 2:])
    return (low / high).prod(dim=-1).sqrt()


def decode_offsets(offsets: Tensor, anchors: Tensor, stds: Sequence[float] = NO_SCALE) -> Tensor:
    """Offsets (B, N, 4) relative to anchors (N, 4) xyxy -> boxes (B, N, 4) xyxy (Girshick et al.
    2014, appendix C, eq. 1 to 4).

    Args:
        offsets: of centre and logarithm of size, divided by ``stds``.
        anchors: in canvas pixels.
        stds: of the four offsets; networks learn values of variance 1.
    """
    if tuple(stds) != NO_SCALE:
        offsets = offsets * torch.tensor(stds, device=offsets.device)
    size = anchors[:, 2:] - anchors[:, :2]  # (N, 2) width, height
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2 + offsets[..., :2] * size  # (B, N, 2); eq. 1, 2
    # (B, N, 2); eq. 3, 4; OpenMMLab limits the scale on both sides, Girshick only above
    half = offsets[..., 2:].clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp() * size / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def encode_offsets(boxes: Tensor, anchors: Tensor, stds: Sequence[float] = NO_SCALE) -> Tensor:
    """The inverse of ``decode_offsets`` for boxes (B, N, 4) with an area."""
    size, other = anchors[:, 2:] - anchors[:, :2], boxes[..., 2:] - boxes[..., :2]
    move = (boxes[..., :2] + boxes[..., 2:] - anchors[:, :2] - anchors[:, 2:]) / 2 / size
    offsets = torch.cat([move, (other / size).log()], dim=-1)  # (B, N, 4)
    return offsets / torch.tensor(stds, device=offsets.device)
