"""Voxels in torch are those of numpy, in the same order."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.geometry import voxels as of_numpy
from mtl_ray.geometry.voxels import VoxelGrid
from mtl_ray.models.voxelize import cells_of, dynamic_voxels, hard_voxels

GRID = VoxelGrid(minimum=(-2, -1.5, -1), maximum=(2, 1.5, 1), size=(0.5, 0.5, 1))


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 200),
    max_points=st.integers(1, 5),
    max_voxels=st.integers(1, 120),
)
def test_hard_voxels_are_those_of_numpy(
    seed: int, count: int, max_points: int, max_voxels: int
) -> None:
    points = np.random.default_rng(seed).uniform(-2.5, 2.5, (count, 4)).astype(np.float32)
    points[::3] = np.round(points[::3] * 2) / 2
    expected = of_numpy.hard_voxels(points, GRID, max_points, max_voxels)
    found = hard_voxels(torch.from_numpy(points), GRID, max_points, max_voxels)
    for one, name in zip(found, ("points", "counts", "coordinates"), strict=True):
        other = getattr(expected, name)
        assert one.numpy().dtype == other.dtype
        assert np.array_equal(one.numpy(), other)
    cells = of_numpy.cells_of(points, GRID)
    assert np.array_equal(cells_of(torch.from_numpy(points), GRID).numpy(), cells)


@given(seed=st.integers(0, 10_000), count=st.integers(0, 200))
def test_dynamic_voxels_keep_every_point_in_its_cell(seed: int, count: int) -> None:
    points = np.random.default_rng(seed).uniform(-2.5, 2.5, (count, 3)).astype(np.float32)
    found = dynamic_voxels(torch.from_numpy(points), GRID)
    cells = of_numpy.cells_of(points, GRID)
    voxel = found.voxel.numpy()
    assert np.array_equal(voxel < 0, cells[:, 0] < 0)
    inside = voxel >= 0
    assert np.array_equal(found.coordinates.numpy()[voxel[inside]], cells[inside])
    _, first = np.unique(voxel[inside], return_index=True)
    assert (np.diff(first) > 0).all()  # in the order of their first points
    assert len(first) == len(found.coordinates)
