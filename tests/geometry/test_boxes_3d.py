"""Corners of boxes in space, and the points in them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtl_ray.geometry.boxes_3d import (
    EDGES,
    box_corners,
    count_points,
    footprints,
    nearest_axis_aligned,
    points_in_boxes,
    wrap_angle,
)

BOX = np.array([[10.0, 5.0, 1.0, 4.0, 2.0, 3.0, np.pi / 2]])


def test_corners_are_where_the_docstring_says() -> None:
    # The heading is +y, so left is -x.
    expected = [(9, 7), (9, 3), (11, 3), (11, 7)]
    assert footprints(BOX)[0] == pytest.approx(np.array(expected))
    found = box_corners(BOX)[0]
    assert found[:4] == pytest.approx(np.array([(x, y, -0.5) for x, y in expected]))
    assert found[4:] == pytest.approx(np.array([(x, y, 2.5) for x, y in expected]))
    lengths = np.linalg.norm(found[EDGES[:, 0]] - found[EDGES[:, 1]], axis=1)
    assert lengths == pytest.approx([4, 2, 4, 2, 4, 2, 4, 2, 3, 3, 3, 3])


@given(hnp.arrays(np.float64, 5, elements=st.floats(-1e6, 1e6)))
def test_wrapped_angles_point_the_same_way(angle: np.ndarray) -> None:
    wrapped = wrap_angle(angle)
    assert ((wrapped >= -np.pi) & (wrapped < np.pi)).all()
    assert np.cos(wrapped) == pytest.approx(np.cos(angle), abs=1e-9)
    assert np.sin(wrapped) == pytest.approx(np.sin(angle), abs=1e-9)


def test_angles_at_the_ends_are_wrapped() -> None:
    found = wrap_angle(np.array([np.pi, -np.pi, 3 * np.pi, np.nextafter(-np.pi, -4)]))
    assert ((found >= -np.pi) & (found < np.pi)).all()
    assert np.abs(found) == pytest.approx(np.pi)


@pytest.mark.parametrize("yaw", [0.0, 0.7, -0.7, np.pi, 2.5])
def test_headings_near_the_x_axis_keep_length_along_it(yaw: float) -> None:
    box = np.array([[1.0, 2.0, 0.0, 4.0, 2.0, 1.0, yaw]])
    assert nearest_axis_aligned(box)[0] == pytest.approx([-1, 1, 3, 3])
    box[0, 6] += np.pi / 2
    assert nearest_axis_aligned(box)[0] == pytest.approx([0, 0, 2, 4])


def clouds_and_boxes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-10, 10, (400, 4)).astype(np.float32)
    boxes = np.column_stack(
        [rng.uniform(-10, 10, (9, 3)), rng.uniform(0.5, 12, (9, 3)), rng.uniform(-9, 9, 9)]
    )
    return points, boxes.astype(np.float32)


@given(seed=st.integers(0, 10_000))
def test_points_are_in_a_box_if_its_planes_say_so(seed: int) -> None:
    points, boxes = clouds_and_boxes(seed)
    found = points_in_boxes(points, boxes)
    for row, box in enumerate(boxes.astype(np.float64)):
        edge = box_corners(box[None])[0]
        local = points[:, :3].astype(np.float64) - edge[2]  # rear right, bottom
        axes = [edge[3] - edge[2], edge[1] - edge[2], edge[6] - edge[2]]
        shares = np.stack([local @ axis / (axis @ axis) for axis in axes], axis=1)
        clear = (np.abs(shares - np.round(shares)) > 1e-9).all(axis=1)
        inside = ((shares > 0) & (shares < 1)).all(axis=1)
        assert np.array_equal(found[row][clear], inside[clear])
    assert np.array_equal(count_points(points, boxes), found.sum(axis=1))


def test_points_on_faces_are_those_of_mmcv() -> None:
    box = np.array([[0.0, 0.0, 0.0, 4.0, 2.0, 2.0, 0.0]])
    points = np.array([[2.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0, 0, -1.0], [1.99, 0.99, 1.0]])
    assert points_in_boxes(points, box)[0].tolist() == [False, False, True, True, True]


def test_boxes_without_a_place_and_empty_clouds_have_no_points() -> None:
    points, boxes = clouds_and_boxes(1)
    boxes[0] = np.nan
    boxes[1, 3] = -1
    assert count_points(points, boxes)[:2].tolist() == [0, 0]
    assert points_in_boxes(points[:0], boxes).shape == (9, 0)
    assert points_in_boxes(points, boxes[:0]).shape == (0, 400)
