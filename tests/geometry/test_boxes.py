"""Boxes as arrays, against plain arithmetic."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.geometry import boxes

corners = st.lists(st.tuples(*[st.integers(-20, 120)] * 4), max_size=6)


def array(rows: list[tuple[int, int, int, int]]) -> np.ndarray:
    """(N, 4) float64."""
    return np.array(rows, np.float64).reshape(-1, 4)


@given(first=corners, second=corners)
def test_iou_counts_pixels(
    first: list[tuple[int, int, int, int]], second: list[tuple[int, int, int, int]]
) -> None:
    def pixels(box: tuple[int, int, int, int]) -> set[tuple[int, int]]:
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    first, second = (
        [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in rows]
        for rows in (first[:2], second[:2])
    )
    found = boxes.iou_matrix(array(first), array(second))
    assert found.shape == (len(first), len(second))
    for row, one in enumerate(first):
        for column, other in enumerate(second):
            union = len(pixels(one) | pixels(other))
            assert np.isclose(
                found[row, column], len(pixels(one) & pixels(other)) / union if union else 0
            )


@given(rows=corners)
def test_forms_of_boxes(rows: list[tuple[int, int, int, int]]) -> None:
    found = array(rows)
    sides = np.concatenate([found[:, :2], found[:, 2:] - found[:, :2]], axis=1)
    centres = np.concatenate(
        [(found[:, :2] + found[:, 2:]) / 2, found[:, 2:] - found[:, :2]], axis=1
    )
    assert np.array_equal(boxes.from_xywh(sides), found)
    assert np.array_equal(boxes.from_centres(centres), found)


def test_clip_and_areas() -> None:
    clipped = boxes.clip(array([(-5, 2, 70, 60), (1, 2, 3, 5)]), 48, 64)
    assert clipped.tolist() == [[0, 2, 64, 48], [1, 2, 3, 5]]
    assert boxes.areas(clipped).tolist() == [64 * 46, 6]
