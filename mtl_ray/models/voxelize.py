"""Voxels in torch, on any device: equal to ``geometry/voxels.py``, in the same order.

Nothing here depends on the order in which threads write, so results on a GPU are deterministic.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mtl_ray.geometry.voxels import VoxelGrid


class HardVoxels(NamedTuple):
    """See ``Voxels``: points (V, P, F) float32, counts (V,) int32, coordinates (V, 3) int32."""

    points: Tensor
    counts: Tensor
    coordinates: Tensor


class DynamicVoxels(NamedTuple):
    """All points of all cells.

    Attributes:
        coordinates: (V, 3) int32, z, y, x, in the order of the first point of each.
        voxel: (N,) int64, the voxel of each point; -1 of a point outside the grid.
    """

    coordinates: Tensor
    voxel: Tensor


def cells_of(points: Tensor, grid: VoxelGrid) -> Tensor:
    """(N, 3) int32 z, y, x of the cell of each of (N, >= 3) float32 points; -1 for a point outside.

    floor((p - minimum) / size) in float32, as the reference.
    """
    low, size, shape = (
        points.new_tensor(values) for values in (grid.minimum, grid.size, grid.shape)
    )
    cells = torch.floor((points[:, :3] - low) / size)
    inside = ((cells >= 0) & (cells < shape)).all(dim=1, keepdim=True)
    return torch.where(inside, cells, -1.0).to(torch.int32).flip(1)


def dynamic_voxels(points: Tensor, grid: VoxelGrid) -> DynamicVoxels:
    """The dynamic voxelizer: no point and no cell is dropped."""
    cells = cells_of(points, grid)
    inside = (cells[:, 0] >= 0).nonzero()[:, 0]
    z, y, x = cells[inside].long().unbind(1)
    nx, ny, _ = grid.shape
    _, inverse = torch.unique((z * ny + y) * nx + x, return_inverse=True)
    number = int(inverse.max()) + 1 if len(inside) else 0
    first = torch.full((number,), len(inside), dtype=torch.int64, device=points.device)
    place = torch.arange(len(inside), device=points.device)
    first = first.scatter_reduce(0, inverse, place, "amin")
    by_first = torch.argsort(first)  # voxels in the order of their first points
    rank = torch.empty_like(by_first)
    rank[by_first] = torch.arange(number, device=points.device)
    voxel = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
    voxel[inside] = rank[inverse]
    return DynamicVoxels(coordinates=cells[inside[first[by_first]]], voxel=voxel)


def hard_voxels(points: Tensor, grid: VoxelGrid, max_points: int, max_voxels: int) -> HardVoxels:
    """The hard voxelizer: at most ``max_points`` of a cell, at most ``max_voxels`` cells; the first
    of each stay.
    """
    coordinates, voxel = dynamic_voxels(points, grid)
    coordinates = coordinates[:max_voxels]
    number = len(coordinates)
    kept = ((voxel >= 0) & (voxel < number)).nonzero()[:, 0]
    kept = kept[torch.argsort(voxel[kept], stable=True)]  # by voxel, in their own order within it
    voxel = voxel[kept]
    counts = torch.bincount(voxel, minlength=number)
    starts = torch.cumsum(counts, 0) - counts
    slot = torch.arange(len(kept), device=points.device) - starts[voxel]
    fits = slot < max_points
    filled = points.new_zeros(number, max_points, points.shape[1])
    filled[voxel[fits], slot[fits]] = points[kept[fits]]
    return HardVoxels(
        points=filled,
        counts=counts.clamp(max=max_points).to(torch.int32),
        coordinates=coordinates,
    )
