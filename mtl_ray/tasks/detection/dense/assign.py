"""Which object each point or anchor of a dense head learns."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mtl_ray.tasks.detection.dense.boxes import distances
from mtl_ray.tasks.detection.dense.losses import intersection_union

PADDED_TO = 32
"""OpenMMLab pads each image to a multiple of this before a batch; anchors of that part count."""


class Matches(NamedTuple):
    """For each of N candidates of B images: its object int64 (B, N), and whether it is positive,
    bool (B, N). The object of a candidate that is not positive has no meaning.
    """

    object: Tensor
    positive: Tensor


def assign_points(
    points: Tensor,
    reach: Tensor,
    ranges: Tensor,
    boxes: Tensor,
    wanted: Tensor,
) -> Matches:
    """FCOS (Tian et al. 2019, section 3.2): a point learns the smallest object that contains it and
    whose farthest side is in the range of the point's level.

    Args:
        points: (N, 2) x, y in canvas pixels.
        reach: (N,) the farthest distance in x and in y of a point from the centre of its object
            (center sampling); inf: anywhere in the object.
        ranges: (N, 2) least and largest distance to the farthest side, both included.
        boxes: (B, M, 4) xyxy.
        wanted: (B, M) bool, the boxes to learn.
    """
    shape = (boxes.shape[0], points.shape[0])
    least = torch.full(shape, torch.inf, device=boxes.device)
    match = torch.zeros(shape, dtype=torch.int64, device=boxes.device)
    # one object of each image at a time: no (B, N, M, 4) tensor is needed
    for place, (box, is_wanted) in enumerate(
        zip(boxes.unbind(dim=1), wanted.unbind(dim=1), strict=True)
    ):
        sides = distances(points, box[:, None])  # (B, N, 4)
        far = sides.amax(dim=2)
        centre = (box[:, :2] + box[:, 2:])[:, None] / 2  # (B, 1, 2)
        core = torch.cat([centre - reach[:, None], centre + reach[:, None]], dim=2)  # (B, N, 4)
        inside = torch.minimum(sides.amin(dim=2), distances(points, core).amin(dim=2)) > 0
        fits = inside & (far >= ranges[:, 0]) & (far <= ranges[:, 1]) & is_wanted[:, None]
        area = (box[:, 2:] - box[:, :2]).prod(dim=1)[:, None]  # (B, 1)
        better = fits & (area < least)
        least = torch.where(better, area, least)
        match = match.masked_fill(better, place)
    return Matches(match, least.isfinite())


def valid_cells(
    sizes: Sequence[tuple[int, int]], strides: Sequence[int], valid_hw: Tensor
) -> Tensor:
    """Which cells lie on the image of each canvas or on its padding to a multiple of 32.

    Args:
        sizes: (height, width) of each level in cells.
        strides: canvas pixels per cell of each level.
        valid_hw: (B, 2) height and width of each image in canvas pixels.

    Returns:
        Bool (B, N), in the order of ``cell_corners`` with one candidate on each cell.
    """
    padded = (valid_hw + PADDED_TO - 1) // PADDED_TO * PADDED_TO  # (B, 2)
    flags = []
    for (height, width), stride in zip(sizes, strides, strict=True):
        count = (padded + stride - 1) // stride  # (B, 2) cells
        rows = torch.arange(height, device=valid_hw.device) < count[:, :1]  # (B, H)
        columns = torch.arange(width, device=valid_hw.device) < count[:, 1:]  # (B, W)
        flags.append((rows[:, :, None] & columns[:, None]).flatten(1))
    return torch.cat(flags, dim=1)


def assign_adaptively(
    anchors: Tensor,
    counts: Sequence[int],
    boxes: Tensor,
    wanted: Tensor,
    valid: Tensor,
    nearest: int = 9,
) -> Matches:
    """ATSS (Zhang et al. 2020, https://arxiv.org/abs/1912.02424, algorithm 1).

    The candidates of an object are the nearest anchors of each level. Those whose IoU reaches the
    mean plus the standard deviation over all candidates, and whose centre is in the object, learn
    it. An anchor of several objects learns the one with the largest IoU.

    Args:
        anchors: (N, 4) xyxy, level by level.
        counts: anchors of each level.
        boxes: (B, M, 4) xyxy.
        wanted: (B, M) bool, the boxes to learn.
        valid: (B, N) bool, the anchors that count.
        nearest: candidates of each level.
    """
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2  # (N, 2)
    gt_centres = (boxes[..., :2] + boxes[..., 2:]) / 2  # (B, M, 2)
    # (B, M, N)
    far = (gt_centres[:, :, None] - centres).square().sum(dim=-1).sqrt()
    far = far.masked_fill(~valid[:, None], torch.inf)
    candidates, real, first = [], [], 0
    for level, count in zip(torch.split(far, list(counts), dim=2), counts, strict=True):
        value, place = level.topk(min(nearest, count), dim=2, largest=False)
        candidates.append(place + first)
        real.append(value.isfinite())
        first += count
    index, exists = torch.cat(candidates, dim=2), torch.cat(real, dim=2)  # (B, M, K)
    overlap, union = intersection_union(anchors[index], boxes[:, :, None])  # (B, M, K)
    iou = overlap / union
    number = exists.sum(dim=2, keepdim=True)  # (B, M, 1)
    mean = (iou * exists).sum(dim=2, keepdim=True) / number.clamp(min=1)
    squares = ((iou - mean).square() * exists).sum(dim=2, keepdim=True)
    # no spread of a single candidate: the published code has NaN there, so no positive
    spread = torch.where(number > 1, squares / (number - 1).clamp(min=1), torch.inf).sqrt()
    inside = distances(centres[index], boxes[:, :, None]).amin(dim=-1) > 0.01
    positive = exists & (iou >= mean + spread) & inside & wanted[..., None]
    best = torch.full_like(far, -1.0).scatter(2, index, torch.where(positive, iou, -1.0))
    if best.shape[1] == 0:
        return Matches(torch.zeros_like(valid, dtype=torch.int64), torch.zeros_like(valid))
    value, match = best.max(dim=1)  # (B, N)
    return Matches(match, value >= 0)
