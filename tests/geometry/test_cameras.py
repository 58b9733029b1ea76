"""Projection into cameras, and the boxes of KITTI."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.geometry.boxes_3d import box_corners, count_points, wrap_angle
from mtl_ray.geometry.cameras import (
    alpha_of,
    boxes_2d,
    clip_segments,
    kitti_to_lidar,
    lidar_to_kitti,
    project,
    transform,
    visible_edges,
)
from tests.geometry.kitti_frames import Frame, read_frame

AXES = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Pinhole:
    """At the lidar, looking along +x."""

    width: int = 200
    height: int = 100
    lidar_to_camera: np.ndarray = field(default_factory=lambda: AXES)
    projection: np.ndarray = field(
        default_factory=lambda: np.array([[100.0, 0, 100, 0], [0, 100, 50, 0], [0, 0, 1, 0]])
    )


CAMERA = Pinhole()


def boxes_of(frame: Frame) -> np.ndarray:
    labels = frame.labels
    return kitti_to_lidar(labels[:, 10:13], labels[:, 7:10], labels[:, 13], frame.lidar_to_camera)


def test_points_are_projected_and_those_behind_are_nan() -> None:
    points = np.array([[10.0, 0, 0], [10, 1, 2], [-10, 1, 2], [0, 1, 1]])
    pixels, depth = project(points, CAMERA)
    assert pixels[:2] == pytest.approx(np.array([[100, 50], [90, 30]]))
    assert np.isnan(pixels[2:]).all()
    assert depth.tolist() == [10, 10, -10, 0]


@given(x=st.floats(6, 60), y=st.floats(-30, 30), z=st.floats(-5, 5), yaw=st.floats(-4, 4))
def test_a_box_in_front_has_the_bounds_of_its_corners(
    x: float, y: float, z: float, yaw: float
) -> None:
    box = np.array([[x, y, z, 4.0, 2.0, 1.5, yaw]])
    pixels, _ = project(box_corners(box), CAMERA)
    low, high = pixels[0].min(axis=0), pixels[0].max(axis=0)
    found = boxes_2d(box, CAMERA)[0]
    if (low < [200, 100]).all() and (high > 0).all():
        expected = [*np.maximum(low, 0), *np.minimum(high, [200, 100])]
        assert found == pytest.approx(expected, abs=1e-6)
    else:
        assert np.isnan(found).all()


def test_a_box_around_the_camera_fills_the_image_and_one_behind_is_not_seen() -> None:
    boxes = np.array([[1.0, 0, 0, 8, 4, 4, 0], [-9, 0, 0, 4, 2, 2, 0.3], [np.nan] * 7])
    found = boxes_2d(boxes, CAMERA)
    assert found[0].tolist() == [0, 0, 200, 100]
    assert np.isnan(found[1:]).all()
    owners, _ = visible_edges(boxes, CAMERA)
    assert set(owners.tolist()) <= {0}


@given(x=st.floats(-3, 8), y=st.floats(-6, 6), yaw=st.floats(-4, 4))
def test_visible_edges_are_finite_and_in_the_image(x: float, y: float, yaw: float) -> None:
    """A box that is partly behind the camera too."""
    _, ends = visible_edges(np.array([[x, y, 0.0, 5, 2, 2, yaw]]), CAMERA)
    assert np.isfinite(ends).all()
    assert ((ends >= 0) & (ends <= [200, 100])).all()


def test_segments_keep_their_direction() -> None:
    lines = np.array([
        [[-10.0, -10], [30, 30]],
        [[2, 5], [8, 5]],
        [[-5, 5], [-1, 5]],
        [[5, -9], [5, 99]],
        [[11, 5], [11, 6]],
    ])  # fmt: skip
    cut = clip_segments(lines, (0.0, 0.0), (10.0, 10.0))
    assert cut.tolist() == [[[0, 0], [10, 10]], [[2, 5], [8, 5]], [[5, 0], [5, 10]]]


@given(
    x=st.floats(-80, 80), y=st.floats(-80, 80), z=st.floats(-4, 4),
    yaw=st.floats(-3.1, 3.1), tilt=st.floats(-0.05, 0.05),
)  # fmt: skip
def test_kitti_and_back_changes_nothing(
    x: float, y: float, z: float, yaw: float, tilt: float
) -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    to_camera = turn @ AXES
    to_camera[:3, 3] = [0.1, -0.2, 0.3]
    box = np.array([[x, y, z, 4.0, 2.0, 1.5, yaw]])
    location, sizes, rotation = lidar_to_kitti(box, to_camera)
    assert sizes.tolist() == [[1.5, 2.0, 4.0]]
    assert kitti_to_lidar(location, sizes, rotation, to_camera) == pytest.approx(box, abs=1e-9)


def test_headings_of_kitti() -> None:
    """A car ahead that drives away has rotation_y and alpha -pi / 2, one that drives to the right
    has 0.
    """
    boxes = np.array([[20.0, 0, 0, 4, 2, 1.5, 0], [20, 0, 0, 4, 2, 1.5, -np.pi / 2]])
    _, _, rotation = lidar_to_kitti(boxes, AXES)
    assert rotation == pytest.approx([-np.pi / 2, 0])
    assert alpha_of(boxes) == pytest.approx([-np.pi / 2, 0])


# Of the object in the frame of the camera, whose y axis is tilted by 0.8 degrees against the z axis
# of the lidar: the README of the data counts so. A box in the frame of the lidar is upright.
TILTED = {
    "000008": [1424, 1940, 878, 668, 53, 164],
    "000134": [523, 160, 80, 91, 36, 31, 43, 48, 46, 154, 54, 91, 64, 11, 3],
}
UPRIGHT = [1325, 1900, 881, 659, 55, 162]
"""``num_lidar_pts`` of 000008 in ``infos/000008.pkl``, which MMDetection3D wrote."""


@pytest.mark.parametrize("name", TILTED)
def test_points_in_the_boxes_of_labels(shared_data: Path, name: str) -> None:
    frame = read_frame(shared_data, name)
    seen = transform(frame.points[:, :3], frame.lidar_to_camera)
    labels = frame.labels
    upright = np.column_stack([
        labels[:, 10], labels[:, 12], labels[:, 7] / 2 - labels[:, 11],
        labels[:, 9], labels[:, 8], labels[:, 7], -labels[:, 13],
    ])  # fmt: skip
    in_camera = np.column_stack([seen[:, 0], seen[:, 2], -seen[:, 1]])
    assert count_points(in_camera, upright).tolist() == TILTED[name]
    if name == "000008":
        assert count_points(frame.points, boxes_of(frame)).tolist() == UPRIGHT


@pytest.mark.parametrize("name", TILTED)
def test_labels_come_back_and_boxes_meet_those_of_the_image(shared_data: Path, name: str) -> None:
    frame = read_frame(shared_data, name)
    boxes = boxes_of(frame)
    location, sizes, rotation = lidar_to_kitti(boxes, frame.lidar_to_camera)
    assert location == pytest.approx(frame.labels[:, 10:13], abs=1e-9)
    assert np.array_equal(sizes, frame.labels[:, 7:10])
    assert rotation == pytest.approx(frame.labels[:, 13], abs=1e-9)
    # The lidar is not at the camera, and labels have two digits.
    assert np.abs(wrap_angle(alpha_of(boxes) - frame.labels[:, 2])).max() < 0.02
    found = boxes_2d(boxes, frame)
    # People drew the boxes of pedestrians, so only those of vehicles are those of the projection.
    rigid = np.array([name != "Pedestrian" for name in frame.names])
    inside = rigid & (frame.labels[:, 5] < 1220) & (frame.labels[:, 6] < 368)
    assert inside.any()
    assert np.abs(found - frame.labels[:, 3:7])[inside].max() < 2
