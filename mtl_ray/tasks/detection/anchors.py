"""The places at which a detection head predicts: cells of feature maps, with anchors on them."""

from collections.abc import Sequence

import torch
from torch import Tensor


def cell_corners(
    sizes: Sequence[tuple[int, int]], strides: Sequence[int], anchors: int | Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Where the cell of each candidate lies; candidates are ordered by level, row, column, anchor.

    Args:
        sizes: (height, width) of each level's feature map, in cells.
        strides: canvas pixels per cell of each level.
        anchors: anchors on each cell, one number for all levels or one for each.
        device: where the result lies.

    Returns:
        The top left corner (N, 2) as x, y and the stride (N, 1) of each candidate's cell, float32 canvas pixels.
    """
    corners, widths = [], []
    for (height, width), stride, count in zip(sizes, strides, _of_each(anchors, len(sizes)), strict=True):
        y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
        cells = torch.stack([x, y], dim=-1).reshape(-1, 1, 2).expand(-1, count, 2).reshape(-1, 2).float() * stride
        corners.append(cells)
        widths.append(torch.full_like(cells[:, :1], stride))
    return torch.cat(corners), torch.cat(widths)


def flatten_levels(maps: Sequence[Tensor], anchors: int | Sequence[int]) -> Tensor:
    """Levels (B, anchors * V, H, W) -> (B, N, V) float32 in the order of ``cell_corners``."""
    each = zip(maps, _of_each(anchors, len(maps)), strict=True)
    flat = [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, level.shape[1] // count) for level, count in each]
    return torch.cat(flat, dim=1).float()


def _of_each(anchors: int | Sequence[int], levels: int) -> Sequence[int]:
    return [anchors] * levels if isinstance(anchors, int) else anchors


def in_crowd(centres: Tensor, boxes: Tensor, crowd: Tensor) -> Tensor:
    """Which candidates lie in a region with many objects, where a prediction is neither right nor wrong.

    Args:
        centres: (N, 2) x, y in canvas pixels.
        boxes: (B, M, 4) xyxy.
        crowd: (B, M) bool, which boxes are such regions.

    Returns:
        (B, N) bool.
    """
    found = torch.zeros(crowd.shape[0], centres.shape[0], dtype=torch.bool, device=boxes.device)
    if not crowd.is_cuda and not crowd.any():  # on a GPU the question would wait for it
        return found
    x, y = centres.t().contiguous()
    for corners, is_crowd in zip(boxes.unbind(dim=1), crowd.unbind(dim=1), strict=True):  # one object of each image: (B, 4), (B,)
        left, top, right, bottom = corners[..., None].unbind(dim=1)  # each (B, 1)
        found |= (x > left) & (y > top) & (x < right) & (y < bottom) & is_crowd[:, None]
    return found
