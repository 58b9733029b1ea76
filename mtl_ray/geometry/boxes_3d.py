"""Boxes in space as arrays: corners, footprints and the points in them.

Frame of the lidar: x front, y left, z up; metres. A box is x, y, z of its centre, length (along its
heading), width, height, yaw in radians, counter-clockwise from +x.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

EDGES = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
)
"""(12, 2) corners at the ends of each edge of a box: bottom, top, upright."""

_SIGNS = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) / 2  # front left, rear left, ...


def wrap_angle(angle: NDArray[np.floating]) -> NDArray[np.float64]:
    """The same angles in [-pi, pi), radians."""
    wrapped = np.mod(np.asarray(angle, np.float64) + np.pi, 2 * np.pi) - np.pi
    # The remainder of a tiny negative number is rounded up to 2 pi.
    return np.asarray(np.where(wrapped >= np.pi, -np.pi, wrapped), np.float64)


def footprints(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 4, 2) x, y of the corners of (N, 7) boxes from above, counter-clockwise: front left, rear
    left, rear right, front right.
    """
    values = np.asarray(boxes, np.float64)
    cosine, sine = np.cos(values[:, 6:7]), np.sin(values[:, 6:7])
    along, across = _SIGNS[:, 0] * values[:, 3:4], _SIGNS[:, 1] * values[:, 4:5]  # (N, 4)
    return np.stack(
        [
            values[:, 0:1] + along * cosine - across * sine,
            values[:, 1:2] + along * sine + across * cosine,
        ],
        axis=-1,
    )


def box_corners(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 8, 3) corners of (N, 7) boxes: the four of ``footprints`` at the bottom, then the same at
    the top.
    """
    values = np.asarray(boxes, np.float64)
    found = np.empty((len(values), 8, 3), np.float64)
    found[:, :4, :2] = found[:, 4:, :2] = footprints(values)
    found[:, :4, 2] = values[:, 2:3] - values[:, 5:6] / 2
    found[:, 4:, 2] = values[:, 2:3] + values[:, 5:6] / 2
    return found


def nearest_axis_aligned(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 4) xyxy metres: the footprints of (N, 7) boxes, each turned to the nearer axis.

    Length and width are exchanged where the heading is more than 45 degrees from the x axis (SECOND
    assigns anchors by the overlap of these rectangles).
    """
    values = np.asarray(boxes, np.float64)
    from_axis = np.abs(values[:, 6] - np.floor(values[:, 6] / np.pi + 0.5) * np.pi)
    sizes = np.where(from_axis[:, None] > np.pi / 4, values[:, [4, 3]], values[:, 3:5])
    return np.concatenate([values[:, :2] - sizes / 2, values[:, :2] + sizes / 2], axis=1)


def points_in_boxes(points: NDArray[np.floating], boxes: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(N, P): whether each of (P, >= 3) points is in each of (N, 7) boxes.

    A point on a side face is outside, a point on the bottom or the top is inside, as in mmcv's
    ``points_in_boxes``. A box with a NaN has no points.
    """
    inside = np.zeros((len(boxes), len(points)), np.bool_)
    for row, found in _members(points, boxes):
        inside[row, found] = True
    return inside


def count_points(points: NDArray[np.floating], boxes: NDArray[np.floating]) -> NDArray[np.int64]:
    """(N,) numbers of points in each box; see ``points_in_boxes``."""
    counts = np.zeros(len(boxes), np.int64)
    for row, found in _members(points, boxes):
        counts[row] = len(found)
    return counts


def _members(
    points: NDArray[np.floating], boxes: NDArray[np.floating]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Row of each box that may have points, and the indices of its points."""
    if not len(points) or not len(boxes):
        return
    xyz = np.asarray(points[:, :3], np.float64)
    values = np.asarray(boxes, np.float64)
    order = np.argsort(xyz[:, 0], kind="stable")
    ordered = xyz[order]
    radii = np.hypot(values[:, 3], values[:, 4]) / 2
    # Only points whose x is in the reach of a box are looked at: some percent of a cloud.
    begins = np.searchsorted(ordered[:, 0], values[:, 0] - radii, side="left")
    ends = np.searchsorted(ordered[:, 0], values[:, 0] + radii, side="right")
    cosine, sine = np.cos(values[:, 6]), np.sin(values[:, 6])
    for row in np.flatnonzero(np.isfinite(values).all(axis=1) & (ends > begins)):
        x, y, z = (ordered[begins[row] : ends[row]] - values[row, :3]).T
        length, width, height = values[row, 3:6] / 2
        near = (
            (np.abs(x * cosine[row] + y * sine[row]) < length)
            & (np.abs(y * cosine[row] - x * sine[row]) < width)
            & (np.abs(z) <= height)
        )
        yield int(row), order[begins[row] : ends[row]][near]
