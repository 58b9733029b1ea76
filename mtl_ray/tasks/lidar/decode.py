"""The prediction of one point cloud, and how it is made of the outputs of a network."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mtl_ray.tasks.difference import Fields


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


class BoxHead3d(Protocol):
    """The part of a head's config that ``decode_detections_3d`` reads."""

    def detections(self, arrays: Fields) -> Detections3d:
        """The objects of one cloud from the arrays of ``predict``."""
        ...


def decode_detections_3d(arrays: Fields, frame: object, head: BoxHead3d) -> Detections3d:
    """The prediction of one cloud.

    Args:
        arrays: of the network; boxes are in metres of the lidar.
        frame: where the cloud lies in the network's frame: where it is.
        head: its config, with thresholds and limits.
    """
    return head.detections(arrays)
