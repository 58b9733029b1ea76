"""Anchors of a map seen from above: where they stand, how boxes are encoded as offsets from them,
and which object each anchor is matched to.

Boxes are (x, y, z, length, width, height, yaw) with z of the centre. The arithmetic is float32 in
the order of the published code (MMDetection3D 1.x), so that equally good anchors tie here, too.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mtl_ray.geometry.voxels import VoxelGrid
from mtl_ray.tasks.lidar.config import Anchor3d, Anchor3dHead

BACKGROUND, IGNORED = -1, -2
"""In ``match_anchors_3d``: an anchor is no object, or it is not judged."""


class AnchorGrid(NamedTuple):
    """The anchors of a map of H x W cells; number ``(row * W + column) * A + kind``.

    Attributes:
        x: (W,) metres of each column.
        y: (H,) metres of each row.
        kinds: (A, 5) z of the centre, length, width, height, yaw; the yaws of a size together.
    """

    x: Tensor
    y: Tensor
    kinds: Tensor

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.x) * len(self.y) * len(self.kinds)

    def boxes(self, index: Tensor) -> Tensor:
        """The boxes (..., 7) of numbers (...)."""
        kinds, columns = len(self.kinds), len(self.x)
        cell = torch.div(index, kinds, rounding_mode="floor")
        x = self.x[cell % columns]
        y = self.y[torch.div(cell, columns, rounding_mode="floor")]
        return torch.cat([torch.stack([x, y], dim=-1), self.kinds[index % kinds]], dim=-1)


def anchors_of(
    config: Anchor3dHead, grid: VoxelGrid, size: tuple[int, int], device: torch.device
) -> AnchorGrid:
    """The anchors of a map.

    Args:
        config: of the head.
        grid: the voxels.
        size: rows and columns of the map.
        device: of the result.
    """
    low_x, low_y, high_x, high_y = config.extent or (*grid.minimum[:2], *grid.maximum[:2])
    kinds = [
        (each.bottom + each.size[2] / 2, *each.size, yaw)
        for each in config.anchors
        for yaw in config.rotations
    ]
    aligned = config.centres == "cell"
    return AnchorGrid(
        _places(low_x, high_x, size[1], device, aligned=aligned),
        _places(low_y, high_y, size[0], device, aligned=aligned),
        torch.tensor(kinds, dtype=torch.float32, device=device),
    )


def _places(low: float, high: float, count: int, device: torch.device, *, aligned: bool) -> Tensor:
    """(count,) metres: the middles of equal cells, or evenly from one end to the other."""
    if not aligned:
        return torch.linspace(low, high, count, device=device)
    edges = torch.linspace(low, high, count + 1, device=device)
    return (edges + (edges[1] - edges[0]) / 2)[:count]


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Offsets (..., 7) of boxes from anchors (Yan et al. 2018, section 3.2): positions in
    diagonals and heights of the anchor, logarithms of ratios of sizes, the difference of yaws.
    """
    diagonal = anchors[..., 3:5].square().sum(dim=-1, keepdim=True).sqrt()
    return torch.cat(
        [
            (boxes[..., :2] - anchors[..., :2]) / diagonal,
            (boxes[..., 2:3] - anchors[..., 2:3]) / anchors[..., 5:6],
            torch.log(boxes[..., 3:6] / anchors[..., 3:6]),
            boxes[..., 6:] - anchors[..., 6:],
        ],
        dim=-1,
    )


def decode(offsets: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of ``encode``."""
    diagonal = anchors[..., 3:5].square().sum(dim=-1, keepdim=True).sqrt()
    return torch.cat(
        [
            offsets[..., :2] * diagonal + anchors[..., :2],
            offsets[..., 2:3] * anchors[..., 5:6] + anchors[..., 2:3],
            torch.exp(offsets[..., 3:6]) * anchors[..., 3:6],
            offsets[..., 6:] + anchors[..., 6:],
        ],
        dim=-1,
    )


def direction_bins(yaw: Tensor, offset: float) -> Tensor:
    """int64: 0 of yaws in [offset, offset + pi), 1 of the others."""
    bins = torch.floor(_within(yaw - offset, 2 * math.pi) / math.pi)
    return bins.long().clamp(0, 1)


def with_direction(yaw: Tensor, bins: Tensor, offset: float) -> Tensor:
    """The yaw of which the direction may be reversed, turned into the half of ``bins``."""
    return _within(yaw - offset, math.pi) + offset + math.pi * bins.to(yaw.dtype)


def _within(angle: Tensor, period: float) -> Tensor:
    return angle - torch.floor(angle / period) * period


def match_anchors_3d(
    anchors: AnchorGrid,
    specs: Sequence[Anchor3d],
    boxes: Tensor,
    allowed: Tensor,
) -> Tensor:
    """The object of each anchor (N,): its index, ``BACKGROUND`` or ``IGNORED``.

    Args:
        anchors: of the map.
        specs: the sizes of anchors, with their thresholds.
        boxes: (M, 7) of the objects.
        allowed: bool (M, sizes), which objects each size can be matched with.
    """
    yaws = len(anchors.kinds) // len(specs)
    found = []
    for place, spec in enumerate(specs):
        kinds = anchors.kinds[place * yaws : (place + 1) * yaws]
        which = torch.nonzero(allowed[:, place]).squeeze(1)
        shape = (len(anchors.y), len(anchors.x), yaws)
        if len(which):
            overlaps = axis_aligned_iou(anchors._replace(kinds=kinds), boxes[which])
            chosen = _assign(overlaps, spec.positive, spec.negative)
            chosen = torch.where(chosen >= 0, which[chosen.clamp(min=0)], chosen)
        else:
            chosen = torch.full(shape, BACKGROUND, device=boxes.device).flatten()
        found.append(chosen.view(shape))
    return torch.stack(found, dim=2).flatten()  # (H, W, sizes, yaws)


def _assign(overlaps: Tensor, positive: float, negative: float) -> Tensor:
    """(N,) of overlaps (G, N): the best object from ``positive`` on, and for each object its best
    anchors from ``negative`` on; of several such objects the last.
    """
    best, chosen = overlaps.max(dim=0)
    found = torch.where(best < negative, BACKGROUND, IGNORED)
    found = torch.where(best >= positive, chosen, found)
    highest = overlaps.amax(dim=1, keepdim=True)  # (G, 1)
    forced = (overlaps == highest) & (highest >= negative)
    objects = torch.arange(len(overlaps), device=overlaps.device)[:, None]
    last = torch.where(forced, objects, -1).amax(dim=0)
    return torch.where(last >= 0, last, found)


def axis_aligned_iou(anchors: AnchorGrid, boxes: Tensor) -> Tensor:
    """IoU (G, N) from above of objects (G, 7) and anchors of one size, all turned to the nearer
    axis. Anchors form a grid, so that overlaps along x and y are found apart.
    """
    sides = _axis_aligned(anchors.kinds[:, 1:3], anchors.kinds[:, 4])  # (R, 2)
    low_x, high_x = _ends(anchors.x[:, None], sides[:, 0])  # (W, R)
    low_y, high_y = _ends(anchors.y[:, None], sides[:, 1])  # (H, R)
    area = (high_x - low_x) * (high_y - low_y)[:, None]  # (H, W, R)
    own = _axis_aligned(boxes[:, 3:5], boxes[:, 6])[:, :, None, None]  # (G, 2, 1, 1)
    left, right = _ends(boxes[:, 0, None, None], own[:, 0])  # (G, 1, 1)
    near, far = _ends(boxes[:, 1, None, None], own[:, 1])
    along = (torch.minimum(high_x, right) - torch.maximum(low_x, left)).clamp(min=0)  # (G, W, R)
    across = (torch.minimum(high_y, far) - torch.maximum(low_y, near)).clamp(min=0)  # (G, H, R)
    common = along[:, None] * across[:, :, None]  # (G, H, W, R)
    own_area = ((right - left) * (far - near))[..., None]  # (G, 1, 1, 1)
    union = (own_area + area - common).clamp(min=1e-6)
    return (common / union).flatten(1)


def _axis_aligned(sides: Tensor, yaw: Tensor) -> Tensor:
    """Sides (N, 2) along x and y of boxes with length and width (N, 2)."""
    turned = (yaw - torch.floor(yaw / math.pi + 0.5) * math.pi).abs() > math.pi / 4
    return torch.where(turned[:, None], sides.flip(1), sides)


def _ends(centre: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
    return centre - side / 2, centre + side / 2
