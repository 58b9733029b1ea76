"""CPU seconds of the geometry of lidar, beside the plain forms that it replaces, by turns in one
process.

    OMP_NUM_THREADS=1 python -m benchmarks.lidar [--rounds R] [--frame FILE.bin]

One thread. Each fast form is checked to give the same as the plain one. The ratio is that of the
medians. Clouds are generated unless ``--frame`` names one of KITTI (float32, four numbers a point).

* voxelizer: 17,000 points into the pillars of PointPillars, beside a loop over the points.
* rotated IoU: 1,000 x 1,000 boxes on 100 x 100 m, beside clipping (Sutherland and Hodgman) each
  pair whose circles meet, one after the other.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mtl_ray.geometry.boxes_3d import footprints
from mtl_ray.geometry.rotated_iou import bev_intersections, bev_iou, iou_3d
from mtl_ray.geometry.voxels import VoxelGrid, hard_voxels
from mtl_ray.models import voxelize

GRID = VoxelGrid(minimum=(0, -39.68, -3), maximum=(69.12, 39.68, 1), size=(0.16, 0.16, 4))
MAX_POINTS, MAX_VOXELS = 32, 40_000


def measure(forms: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, by turns."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, form in forms.items():
            begin = time.process_time()
            form()
            times[name].append(time.process_time() - begin)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def show(title: str, seconds: dict[str, float], plain: str) -> None:
    print(title)
    for name, value in seconds.items():
        print(f"  {name:<28}{value * 1e3:10.2f} ms   {seconds[plain] / value:8.1f} x")


def street(rng: np.random.Generator) -> NDArray[np.float32]:
    """Points as dense as those of a frame: many near the sensor, few far from it."""
    reach, angle = 5 + rng.exponential(12, 17_000), rng.uniform(-0.7, 0.7, 17_000)
    return np.column_stack(
        [reach * np.cos(angle), reach * np.sin(angle), rng.uniform(-2, 0.5, 17_000), angle]
    ).astype(np.float32)


def plain_voxels(points: NDArray[np.float32]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Cells in the order of their first points, and the number of points kept of each."""
    low, size = np.float32(GRID.minimum), np.float32(GRID.size)
    shape = GRID.shape
    filled = np.zeros((MAX_VOXELS, MAX_POINTS, points.shape[1]), np.float32)
    numbers: dict[tuple[int, ...], int] = {}
    counts: list[int] = []
    for point in points:
        cell = tuple(int(value) for value in np.floor((point[:3] - low) / size))
        if not all(0 <= value < side for value, side in zip(cell, shape, strict=True)):
            continue
        number = numbers.get(cell)
        if number is None:
            if len(counts) == MAX_VOXELS:
                continue
            number = numbers[cell] = len(counts)
            counts.append(0)
        if counts[number] < MAX_POINTS:
            filled[number, counts[number]] = point
            counts[number] += 1
    return [cell[::-1] for cell in numbers], counts


def compare_voxelizers(points: NDArray[np.float32], rounds: int) -> None:
    tensor = torch.from_numpy(points)
    found = hard_voxels(points, GRID, MAX_POINTS, MAX_VOXELS)
    cells, counts = plain_voxels(points)
    assert found.coordinates.tolist() == [list(cell) for cell in cells]
    assert found.counts.tolist() == counts
    of_torch = voxelize.hard_voxels(tensor, GRID, MAX_POINTS, MAX_VOXELS)
    assert np.array_equal(of_torch.points.numpy(), found.points)
    seconds = measure(
        {
            "loop over points": lambda: plain_voxels(points),
            "numpy": lambda: hard_voxels(points, GRID, MAX_POINTS, MAX_VOXELS),
            "torch": lambda: voxelize.hard_voxels(tensor, GRID, MAX_POINTS, MAX_VOXELS),
        },
        rounds,
    )
    show(f"voxelizer, {len(points):,} points, {len(counts):,} pillars", seconds, "loop over points")


def clipped_area(polygon: list[tuple[float, float]], other: list[tuple[float, float]]) -> float:
    """Sutherland and Hodgman, one edge after the other."""
    for (ax, ay), (bx, by) in zip(other, [*other[1:], other[0]], strict=True):
        kept = []
        sides = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in polygon]
        for index, (x, y) in enumerate(polygon):
            after = (index + 1) % len(polygon)
            here, there = sides[index], sides[after]
            if here >= 0:
                kept.append((x, y))
            if here * there < 0:
                share = here / (here - there)
                kept.append(
                    (x + share * (polygon[after][0] - x), y + share * (polygon[after][1] - y))
                )
        polygon = kept
    ends = zip(polygon, [*polygon[1:], *polygon[:1]], strict=True)
    return sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in ends) / 2


def plain_intersections(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    reach = np.hypot(first[:, 3], first[:, 4]) / 2
    other_reach = np.hypot(second[:, 3], second[:, 4]) / 2
    apart = np.hypot(*(first[:, None, :2] - second[None, :, :2]).transpose(2, 0, 1))
    areas = np.zeros((len(first), len(second)))
    one, other = footprints(first).tolist(), footprints(second).tolist()
    for row, column in np.argwhere(apart <= reach[:, None] + other_reach):
        areas[row, column] = clipped_area(one[row], other[column])
    return areas


def compare_overlaps(rng: np.random.Generator, rounds: int) -> None:
    first, second = (
        np.column_stack(
            [
                rng.uniform(-50, 50, (1000, 2)),
                rng.uniform(-1, 1, 1000),
                rng.uniform(0.5, 5, (1000, 3)),
                rng.uniform(-np.pi, np.pi, 1000),
            ]
        )
        for _ in range(2)
    )
    found = bev_intersections(first, second)
    assert np.abs(found - plain_intersections(first, second)).max() < 1e-9
    seconds = measure(
        {
            "clipping pair by pair": lambda: plain_intersections(first, second),
            "bev_iou": lambda: bev_iou(first, second),
            "iou_3d": lambda: iou_3d(first, second),
        },
        rounds,
    )
    title = f"rotated IoU, 1,000 x 1,000 boxes, {np.count_nonzero(found):,} pairs overlap"
    show(title, seconds, "clipping pair by pair")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frame", type=Path)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    frame = arguments.frame
    points = np.fromfile(frame, "<f4").reshape(-1, 4) if frame else street(rng)
    compare_voxelizers(points, arguments.rounds)
    compare_overlaps(rng, arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
