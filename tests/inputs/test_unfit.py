"""Arrays from others: values that would be an index outside an engine's memory are refused."""

from typing import Any

import numpy as np
import pytest

from mtl_ray.inputs.image import Canvas
from mtl_ray.inputs.input import empty_batch, placed
from mtl_ray.inputs.points import PointCanvas

POINTS = PointCanvas(
    type="points",
    minimum=(0.0, -4.0, -2.0),
    maximum=(8.0, 4.0, 2.0),
    voxel=(1.0, 1.0, 4.0),
    max_points=4,
    max_voxels=16,
)
IMAGES = Canvas(height=64, width=96)


@pytest.mark.parametrize("rule", [POINTS, IMAGES])
def test_what_the_canvas_makes_itself_fits(rule: Any) -> None:
    kind = rule.input
    raws = [kind.generate(np.random.default_rng(i))[1] for i in range(3)]
    assert kind.unfit(rule, placed(raws, rule)[0]) is None
    assert kind.unfit(rule, empty_batch(rule, 2)) is None
    assert kind.unfit(rule, {}) is None


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("num_points", (0, 0), 5),
        ("num_points", (0, 0), -1),
        ("coordinates", (0, 0, 0), 1),
        ("coordinates", (0, 0, 1), 8),
        ("coordinates", (0, 0, 2), 2**30),
        ("coordinates", (0, 0, 2), -1),
        ("coordinates", (0, 0), -1),
        ("coordinates", (0, 0), -2),
    ],
)
def test_cells_outside_the_grid(name: str, place: tuple[int, ...], value: int) -> None:
    kind = POINTS.input
    arrays, _ = placed([kind.generate(np.random.default_rng(0))[1]], POINTS)
    arrays[name][place] = value
    assert kind.unfit(POINTS, arrays) is not None


@pytest.mark.parametrize("value", [(0, 96), (64, 97), (-1, 5), (65, 96)])
def test_a_valid_part_outside_the_canvas(value: tuple[int, int]) -> None:
    arrays = empty_batch(IMAGES, 2)
    arrays["valid_hw"][1] = value
    assert IMAGES.input.unfit(IMAGES, arrays) is not None
