"""Voxels: equal to the plain loop of the reference rule."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.geometry import voxels
from mtl_ray.geometry.voxels import VoxelGrid, Voxels, cells_of, hard_voxels
from tests.geometry.kitti_frames import read_frame

SMALL = VoxelGrid(minimum=(-2, -1.5, -1), maximum=(2, 1.5, 1), size=(0.5, 0.5, 1))
KITTI = VoxelGrid(minimum=(0, -39.68, -3), maximum=(69.12, 39.68, 1), size=(0.16, 0.16, 4))


def plain_loop(points: np.ndarray, grid: VoxelGrid, max_points: int, max_voxels: int) -> Voxels:
    """The rule of mmcv's ``hard_voxelize_forward_cpu``, point by point."""
    numbers: dict[tuple[int, ...], int] = {}
    held: list[list[np.ndarray]] = []
    low, size = np.float32(grid.minimum), np.float32(grid.size)
    for point in points:
        cell = tuple(int(np.floor((point[i] - low[i]) / size[i])) for i in (2, 1, 0))
        if not all(0 <= c < n for c, n in zip(cell, reversed(grid.shape), strict=True)):
            continue
        if cell not in numbers:
            if len(held) >= max_voxels:
                continue
            numbers[cell] = len(held)
            held.append([])
        if len(held[numbers[cell]]) < max_points:
            held[numbers[cell]].append(point)
    filled = np.zeros((len(held), max_points, points.shape[1]), np.float32)
    for row, kept in enumerate(held):
        filled[row, : len(kept)] = kept
    return Voxels(
        points=filled,
        counts=np.array([len(kept) for kept in held], np.int32),
        coordinates=np.array(list(numbers), np.int32).reshape(-1, 3),
    )


def assert_equal(found: Voxels, expected: Voxels) -> None:
    for name in ("points", "counts", "coordinates"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype
        assert np.array_equal(one, other), name


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 200),
    max_points=st.integers(1, 5),
    max_voxels=st.integers(1, 120),
    table=st.booleans(),
)
def test_voxels_are_those_of_the_plain_loop(
    seed: int, count: int, max_points: int, max_voxels: int, table: bool
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-2.5, 2.5, (count, 4)).astype(np.float32)
    points[::3] = np.round(points[::3] * 2) / 2  # on the faces of cells
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(voxels, "LARGEST_TABLE", 1 << 23 if table else 0)
        found = hard_voxels(points, SMALL, max_points, max_voxels)
    assert_equal(found, plain_loop(points, SMALL, max_points, max_voxels))


def test_a_frame_of_kitti_has_its_pillars(shared_data: Path) -> None:
    points = read_frame(shared_data, "000008").points
    found = hard_voxels(points, KITTI, 32, 40_000)
    assert len(found.counts) == 3945
    assert_equal(found, plain_loop(points, KITTI, 32, 40_000))
    assert_equal(hard_voxels(points, KITTI, 3, 1000), plain_loop(points, KITTI, 3, 1000))


def test_many_voxels_are_numbered_beyond_sixteen_bits() -> None:
    grid = VoxelGrid(minimum=(0, 0, 0), maximum=(300, 300, 1), size=(1, 1, 1))
    x, y = np.divmod(np.random.default_rng(0).permutation(90_000), 300)
    points = np.column_stack([x + 0.5, y + 0.5, np.full(90_000, 0.5)]).astype(np.float32)
    found = hard_voxels(points, grid, 1, 90_000)
    assert np.array_equal(found.points[:, 0], points)
    assert np.array_equal(found.coordinates[:, 2], x)


def test_points_outside_and_those_that_are_no_place_have_no_cell() -> None:
    points = np.array(
        [[0, 0, 0], [2, 0, 0], [-2, 0, 0], [0, 0, -1.01], [np.nan, 0, 0], [3e38, 0, 0]], np.float32
    )
    found = cells_of(points, SMALL)
    assert found.tolist() == [[1, 3, 4], [-1] * 3, [1, 3, 0], [-1] * 3, [-1] * 3, [-1] * 3]
    assert len(hard_voxels(points, SMALL, 2, 9).counts) == 2
