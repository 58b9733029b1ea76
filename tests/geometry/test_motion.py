"""Motions move points and boxes together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.geometry.boxes_3d import box_corners, count_points, points_in_boxes
from mtl_ray.geometry.motion import Motion

motions = st.builds(
    Motion,
    flip_y=st.booleans(),
    flip_x=st.booleans(),
    rotation=st.floats(-4, 4),
    scale=st.floats(0.8, 1.2),
    shift=st.tuples(*[st.floats(-3, 3)] * 3),
)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points that are clearly in or out of boxes (a hundredth of a side from their faces)."""
    rng = np.random.default_rng(seed)
    boxes = np.column_stack(
        [rng.uniform(-40, 40, (5, 3)), rng.uniform(1, 6, (5, 3)), rng.uniform(-3.1, 3.1, 5)]
    ).astype(np.float32)
    points = (boxes[:, None, :3] + rng.uniform(-5, 5, (5, 60, 3))).reshape(-1, 3)
    small, large = boxes.copy(), boxes.copy()
    small[:, 3:6] *= 0.98
    large[:, 3:6] *= 1.02
    unclear = (points_in_boxes(points, large) & ~points_in_boxes(points, small)).any(axis=0)
    return points[~unclear].astype(np.float32), boxes


@given(motion=motions, seed=st.integers(0, 10_000))
def test_points_stay_in_their_boxes(motion: Motion, seed: int) -> None:
    points, boxes = scene(seed)
    moved, moved_boxes = motion.points(points), motion.boxes(boxes)
    assert np.array_equal(points_in_boxes(moved, moved_boxes), points_in_boxes(points, boxes))
    assert np.array_equal(count_points(moved, moved_boxes), count_points(points, boxes))
    assert count_points(points, boxes).sum() > 0


@given(motion=motions, seed=st.integers(0, 10_000))
def test_the_front_of_a_box_moves_as_its_points_do(motion: Motion, seed: int) -> None:
    """The points in a box do not show where its front is."""
    _, boxes = scene(seed)
    for before, after in zip(box_corners(boxes), box_corners(motion.boxes(boxes)), strict=True):
        front = motion.points(((before[0] + before[3]) / 2).astype(np.float32)[None])[0]
        assert (after[0] + after[3]) / 2 == pytest.approx(front, abs=2e-4)


@given(motion=motions, seed=st.integers(0, 10_000))
def test_velocities_are_differences_of_places(motion: Motion, seed: int) -> None:
    rng = np.random.default_rng(seed)
    place, way = rng.uniform(-9, 9, (4, 3)), rng.uniform(-9, 9, (4, 2))
    later = place + np.pad(way, ((0, 0), (0, 1)))
    moved = motion.points(later.astype(np.float32)) - motion.points(place.astype(np.float32))
    assert motion.velocities(way.astype(np.float32)) == pytest.approx(moved[:, :2], abs=1e-4)


@given(motion=motions, yaw=st.floats(-np.pi, np.pi))
def test_yaw_stays_in_range(motion: Motion, yaw: float) -> None:
    found = motion.boxes(np.array([[1, 2, 3, 4, 2, 1, yaw]], np.float32))[0, 6]
    assert -np.float32(np.pi) <= found < np.float32(np.pi)


def test_nothing_is_no_motion() -> None:
    points, boxes = scene(3)
    assert np.array_equal(Motion().points(points), points)
    assert Motion().boxes(boxes) == pytest.approx(boxes, abs=1e-6)
    velocity = np.array([[np.nan, np.nan], [1, 2]], np.float32)
    assert np.isnan(Motion(flip_x=True).velocities(velocity)[0]).all()
