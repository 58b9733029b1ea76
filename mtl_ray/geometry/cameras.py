"""Cameras that see the scene of a cloud: projection, boxes in an image, and the boxes of KITTI.

Frame of a camera: x right, y down, z front; metres. Pixels: u right, v down.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.boxes_3d import EDGES, box_corners, wrap_angle

NEAR = 0.1
"""Metres in front of a camera where boxes are cut: what is nearer has no place in the image."""


class CameraModel(Protocol):
    """What is needed of a camera; see ``inputs/point_cloud.py``."""

    @property
    def width(self) -> int:
        """Pixels of its images."""

    @property
    def height(self) -> int:
        """Pixels of its images."""

    @property
    def lidar_to_camera(self) -> NDArray[np.float64]:
        """(4, 4)."""

    @property
    def projection(self) -> NDArray[np.float64]:
        """(3, 4), from its frame to pixels."""


def transform(points: NDArray[np.floating], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 3) points moved by a (4, 4) matrix."""
    return np.asarray(np.asarray(points, np.float64) @ matrix[:3, :3].T + matrix[:3, 3], np.float64)


def project(
    points: NDArray[np.floating], camera: CameraModel
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where (..., >= 3) points of the lidar are in the image.

    Returns:
        (..., 2) pixels, NaN for a point that is not in front of the camera, and (...) depth in
        metres.
    """
    return _to_pixels(_to_camera_rays(points[..., :3], camera))


def boxes_2d(boxes: NDArray[np.floating], camera: CameraModel) -> NDArray[np.float64]:
    """(N, 4) xyxy pixels around the projections of (N, 7) boxes, clipped to the image; NaN for a
    box that the camera does not see. The part of a box that is behind the camera is cut off.
    """
    found = np.full((len(boxes), 4), np.nan)
    owners, segments = _front_edges(boxes, camera)
    for low in (True, False):
        extreme = np.full((len(boxes), 2), np.inf if low else -np.inf)
        choose = np.minimum if low else np.maximum
        choose.at(extreme, np.repeat(owners, 2), segments.reshape(-1, 2))
        found[:, slice(0, 2) if low else slice(2, 4)] = extreme
    size = np.array([camera.width, camera.height], np.float64)
    seen = (found[:, :2] < size).all(axis=1) & (found[:, 2:] > 0).all(axis=1)
    found[:, :2] = np.maximum(found[:, :2], 0)
    found[:, 2:] = np.minimum(found[:, 2:], size)
    found[~seen] = np.nan
    return found


def visible_edges(
    boxes: NDArray[np.floating], camera: CameraModel
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The edges of (N, 7) boxes that a camera sees, cut ``NEAR`` before it and at its image.

    Returns:
        (E,) the box of each edge, and (E, 2, 2) the pixels of its two ends.
    """
    owners, segments = _front_edges(boxes, camera)
    inside, cut = _cut(segments, (0.0, 0.0), (float(camera.width), float(camera.height)))
    return owners[inside], cut


def clip_segments(
    segments: NDArray[np.float64], low: tuple[float, float], high: tuple[float, float]
) -> NDArray[np.float64]:
    """The parts of (N, 2, 2) lines, two ends each, that are in a rectangle; fewer than N if some
    are outside. Directions are kept (Liang and Barsky, 1984).
    """
    return _cut(segments, low, high)[1]


def _cut(
    segments: NDArray[np.float64], low: tuple[float, float], high: tuple[float, float]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which lines are in the rectangle, and their parts in it."""
    begin, way = segments[:, 0], segments[:, 1] - segments[:, 0]
    moves = way != 0
    # Shares of the way at which each coordinate (N, 2) passes the lower and the upper side.
    passes = [
        np.divide(side - begin, way, out=np.zeros_like(way), where=moves)
        for side in (np.array(low), np.array(high))
    ]
    enters = np.where(moves, np.minimum(*passes), 0.0).max(axis=1).clip(min=0)
    leaves = np.where(moves, np.maximum(*passes), 1.0).min(axis=1).clip(max=1)
    beside = ~moves & ((begin < low) | (begin > high))
    inside = np.flatnonzero((enters <= leaves) & ~beside.any(axis=1))
    shares = np.stack([enters[inside], leaves[inside]], axis=1)[:, :, None]
    return inside, np.clip(begin[inside, None] + shares * way[inside, None], low, high)


def _front_edges(
    boxes: NDArray[np.floating], camera: CameraModel
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """``visible_edges``, not cut at the image."""
    rays = _to_camera_rays(box_corners(boxes), camera)  # (N, 8, 3) u w, v w, w
    ends = rays[:, EDGES].reshape(-1, 2, 3)
    owners = np.repeat(np.arange(len(boxes)), len(EDGES))
    front = ends[..., 2] >= NEAR
    shown = front.any(axis=1) & np.isfinite(ends).all(axis=(1, 2))
    ends, owners, front = ends[shown], owners[shown], front[shown]
    cut = np.flatnonzero(~front.all(axis=1))
    hidden = np.where(front[cut, 0], 1, 0)
    near, far = ends[cut, hidden], ends[cut, 1 - hidden]
    share = (NEAR - near[:, 2:]) / (far[:, 2:] - near[:, 2:])
    crossing = near + share * (far - near)
    crossing[:, 2] = NEAR  # not a little behind it by rounding
    ends[cut, hidden] = crossing
    return owners, ends[..., :2] / ends[..., 2:]


def lidar_to_kitti(
    boxes: NDArray[np.floating], lidar_to_camera: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(N, 7) boxes as label files of KITTI state them.

    Args:
        boxes: (N, 7).
        lidar_to_camera: (4, 4), to the rectified frame of camera 0.

    Returns:
        (N, 3) bottom centre in that frame, (N, 3) height, width, length, and (N,) rotation around
        its y axis in [-pi, pi).
    """
    values = np.asarray(boxes, np.float64)
    bottom = values[:, :3].copy()
    bottom[:, 2] -= values[:, 5] / 2
    return (
        transform(bottom, lidar_to_camera),
        values[:, [5, 4, 3]],
        wrap_angle(-values[:, 6] - np.pi / 2),
    )


def kitti_to_lidar(
    location: NDArray[np.floating],
    hwl: NDArray[np.floating],
    rotation_y: NDArray[np.floating],
    lidar_to_camera: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(N, 7) boxes in the frame of the lidar; the inverse of ``lidar_to_kitti``."""
    sizes = np.asarray(hwl, np.float64)
    centres = transform(location, np.asarray(np.linalg.inv(lidar_to_camera), np.float64))
    centres[:, 2] += sizes[:, 0] / 2
    yaw = wrap_angle(-np.asarray(rotation_y, np.float64) - np.pi / 2)
    return np.concatenate([centres, sizes[:, [2, 1, 0]], yaw[:, None]], axis=1)


def alpha_of(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N,) observation angles of KITTI in [-pi, pi) of (N, 7) boxes: the rotation around the y axis
    of the camera, minus the direction in which the box is seen. The lidar stands for the camera, as
    in the results that OpenMMLab writes.
    """
    values = np.asarray(boxes, np.float64)
    return wrap_angle(np.arctan2(values[:, 1], values[:, 0]) - values[:, 6] - np.pi / 2)


def _to_camera_rays(xyz: NDArray[np.floating], camera: CameraModel) -> NDArray[np.float64]:
    """(..., 3) u w, v w, w of points of the lidar; w is the depth in metres."""
    seen = transform(xyz, camera.lidar_to_camera)
    return np.asarray(seen @ camera.projection[:, :3].T + camera.projection[:, 3], np.float64)


def _to_pixels(
    rays: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    depth = rays[..., 2]
    front = (depth > 0)[..., None]
    pixels = np.divide(
        rays[..., :2], depth[..., None], out=np.full(rays[..., :2].shape, np.nan), where=front
    )
    return pixels, depth
