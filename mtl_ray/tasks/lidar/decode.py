"""The prediction of one point cloud, and how it is made of the outputs of a network."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Detections3d:
    """The objects of one cloud, K of them, best first.

    Attributes:
        boxes: (K, 7) float32: x, y, z of the centre, length, width, height in metres, yaw in
            radians, in the frame of the lidar (``annotations/boxes_3d.py``).
        scores: (K,) float32 in [0, 1].
        classes: (K,) int64.
        velocity: (K, 2) float32 metres per second; None of a head that predicts none.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    velocity: NDArray[np.float32] | None = None
