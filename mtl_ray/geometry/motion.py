"""Motions of a point cloud and of everything in it: mirror, rotation, scale, shift.

Frame: x front, y left, z up; metres; yaw in radians, counter-clockwise from +x.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.boxes_3d import wrap_angle


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """Applied in the order of its attributes.

    Attributes:
        flip_y: mirrors y -> -y (left and right are exchanged).
        flip_x: mirrors x -> -x (front and back are exchanged).
        rotation: radians about +z, counter-clockwise.
        scale: of all coordinates, sizes and velocities.
        shift: (x, y, z) metres.
    """

    flip_y: bool = False
    flip_x: bool = False
    rotation: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(3, 3): a point p becomes ``matrix @ p + shift``."""
        mirror = np.diag([-1.0 if self.flip_x else 1.0, -1.0 if self.flip_y else 1.0, 1.0])
        cosine, sine = np.cos(self.rotation), np.sin(self.rotation)
        turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
        return np.asarray(self.scale * turn @ mirror, np.float64)

    def points(self, xyz: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 3) float32 positions."""
        return np.asarray(xyz @ self.matrix.T + np.array(self.shift), np.float32)

    def velocities(self, xy: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 2) float32 vectors, metres per second; not shifted."""
        return np.asarray(xy @ self.matrix[:2, :2].T, np.float32)

    def boxes(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 7) float32: x, y, z of the centre, length, width, height, yaw in [-pi, pi)."""
        yaw = boxes[:, 6].astype(np.float64)
        yaw = -yaw if self.flip_y else yaw
        yaw = np.pi - yaw if self.flip_x else yaw
        yaw = wrap_angle(yaw + self.rotation).astype(np.float32)
        # What is nearer to pi than float32 can say is rounded up to it.
        yaw = np.where(yaw >= np.float32(np.pi), -yaw, yaw)
        sizes = (boxes[:, 3:6].astype(np.float64) * self.scale).astype(np.float32)
        return np.concatenate([self.points(boxes[:, :3]), sizes, yaw[:, None]], axis=1)
