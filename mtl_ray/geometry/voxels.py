"""Voxels: points of a cloud sorted into the cells of a grid.

The order of the points decides everything, so the result is the same on every machine: voxels are
numbered by their first point, and each keeps its first points (the rule of mmcv's ``hard_voxelize``
in its deterministic form).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LARGEST_TABLE = 1 << 23
"""Cells of a grid up to which a table of all of them is faster than sorting the points."""


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
    cells, inside = _cells(points, grid)
    found = np.full((len(points), 3), -1, np.int32)
    found[inside] = np.stack(cells, axis=1)
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
    (z, y, x), inside = _cells(points, grid)
    nx, ny, nz = grid.shape
    keys = (z.astype(np.int64) * ny + y) * nx + x
    first = _first_places(keys, nx * ny * nz)
    begins = first == np.arange(len(keys))  # points that are the first of their cell
    voxel = (np.cumsum(begins) - 1)[first]
    used = voxel < max_voxels
    number = min(int(np.count_nonzero(begins)), max_voxels)
    # Stable: points by voxel, in their own order within it. Numbers of 16 bits sort by radix.
    narrow = np.uint16 if number <= np.iinfo(np.uint16).max + 1 else np.int32
    kept = np.flatnonzero(used)
    kept = kept[np.argsort(voxel[kept].astype(narrow), kind="stable")]
    voxel = voxel[kept]
    counts = np.bincount(voxel, minlength=number)
    slot = np.arange(len(kept)) - (np.cumsum(counts) - counts)[voxel]
    fits = slot < max_points
    filled = np.zeros((number, max_points, points.shape[1]), np.float32)
    filled[voxel[fits], slot[fits]] = points[inside[kept[fits]]]
    chosen = np.flatnonzero(begins)[:number]
    return Voxels(
        points=filled,
        counts=np.minimum(counts, max_points).astype(np.int32),
        coordinates=np.stack([z[chosen], y[chosen], x[chosen]], axis=1),
    )


def _cells(
    points: NDArray[np.float32], grid: VoxelGrid
) -> tuple[tuple[NDArray[np.int32], ...], NDArray[np.int64]]:
    """z, y, x of the cells of the points in the grid, each (n,), and (n,) which points they are."""
    cells = []
    inside = np.ones(len(points), np.bool_)
    for axis, count in enumerate(grid.shape):
        low, size = np.float32(grid.minimum[axis]), np.float32(grid.size[axis])
        with np.errstate(over="ignore", invalid="ignore"):  # far points and NaN are outside
            cell = np.floor((points[:, axis] - low) / size)
        inside &= (cell >= 0) & (cell < np.float32(count))
        cells.append(cell)
    which = np.flatnonzero(inside)
    return tuple(cell[which].astype(np.int32) for cell in reversed(cells)), which


def _first_places(keys: NDArray[np.int64], cells: int) -> NDArray[np.int64]:
    """(n,) place of the first equal key of each of (n,) keys, which are below ``cells``."""
    if cells <= LARGEST_TABLE:
        # Only places that are written are read. Of equal indices numpy keeps the last value, so
        # the keys are written backwards.
        table = np.empty(cells, np.int32)
        table[keys[::-1]] = np.arange(len(keys) - 1, -1, -1, dtype=np.int32)
        return table[keys].astype(np.int64)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.asarray(first[inverse.ravel()], np.int64)
