"""Voxels: points of a cloud sorted into the cells of a grid.

The order of the points decides everything, so the result is the same on every machine: voxels are
numbered by their first point, and each keeps its first points (the rule of mmcv's ``hard_voxelize``
in its deterministic form).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelGrid:
    """A box of space that is divided into cells.

    Attributes:
        minimum, maximum: (x, y, z) metres.
        size: (x, y, z) of a cell in metres.
    """

    minimum: tuple[float, float, float]
    maximum: tuple[float, float, float]
    size: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells along x, y, z."""
        x, y, z = (
            round((high - low) / side)
            for low, high, side in zip(self.minimum, self.maximum, self.size, strict=True)
        )
        return x, y, z


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Voxels:
    """The voxels of one cloud.

    Attributes:
        points: (V, P, F) float32, padded with zeros.
        counts: (V,) int32, points of each.
        coordinates: (V, 3) int32, z, y, x of the cell.
    """

    points: NDArray[np.float32]
    counts: NDArray[np.int32]
    coordinates: NDArray[np.int32]


def cells_of(points: NDArray[np.float32], grid: VoxelGrid) -> NDArray[np.int32]:
    """The dynamic voxelizer: (N, 3) int32, z, y, x of the cell of each point; -1 for all three of
    a point outside. floor((p - minimum) / size) in float32, as the reference.
    """
    minimum, size = (np.array(values, np.float32) for values in (grid.minimum, grid.size))
    cells = np.floor((points[:, :3] - minimum) / size)
    inside = ((cells >= 0) & (cells < np.array(grid.shape, np.float32))).all(axis=1)
    found = np.full((len(points), 3), -1, np.int32)
    found[inside] = cells[inside].astype(np.int32)[:, ::-1]
    return found


def hard_voxels(
    points: NDArray[np.float32], grid: VoxelGrid, max_points: int, max_voxels: int
) -> Voxels:
    """The hard voxelizer: at most ``max_points`` of a cell, at most ``max_voxels`` cells.

    Args:
        points: (N, F) float32, x, y, z first.
        grid: the cells.
        max_points: further points of a cell are dropped.
        max_voxels: cells whose first point comes after those of this many others are dropped.
    """
    cells = cells_of(points, grid)
    kept = np.flatnonzero(cells[:, 0] >= 0)
    z, y, x = cells[kept].astype(np.int64).T
    nx, ny, _ = grid.shape
    keys = (z * ny + y) * nx + x
    _, first, cell = np.unique(keys, return_index=True, return_inverse=True)
    by_first = np.argsort(first, kind="stable")  # voxels in the order of their first points
    rank = np.empty(len(first), np.int64)
    rank[by_first] = np.arange(len(first))
    voxel = rank[cell.ravel()]
    order = np.argsort(voxel, kind="stable")  # points by voxel, in their own order within it
    counts = np.bincount(voxel, minlength=len(first))
    starts = np.cumsum(counts) - counts
    slot = np.arange(len(order)) - starts[voxel[order]]
    used = (slot < max_points) & (voxel[order] < max_voxels)
    number = min(len(first), max_voxels)
    filled = np.zeros((number, max_points, points.shape[1]), np.float32)
    filled[voxel[order][used], slot[used]] = points[kept[order[used]]]
    return Voxels(
        points=filled,
        counts=np.minimum(counts[:number], max_points).astype(np.int32),
        coordinates=cells[kept[first[by_first[:number]]]],
    )
