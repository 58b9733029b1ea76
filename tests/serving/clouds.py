"""A predictor of point clouds without a network: two boxes around what it was given."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inference.predictor import Predictions
from mtl_ray.inputs.input import AnyCanvas
from mtl_ray.inputs.point_cloud import PointCloud
from mtl_ray.inputs.points import PointCanvas
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.lidar.task import DETECTION_3D
from mtl_ray.tasks.task import HeadKind, KnownHead

CANVAS = PointCanvas(
    type="points", minimum=(0.0, -40.0, -3.0), maximum=(80.0, 40.0, 1.0), voxel=(0.5, 0.5, 4.0)
)


def cloud_canvas(*features: str) -> PointCanvas:
    """The canvas of the predictor with other features."""
    return PointCanvas(
        type="points",
        features=features,
        minimum=CANVAS.minimum,
        maximum=CANVAS.maximum,
        voxel=CANVAS.voxel,
    )


class MiddlePredictor:
    """A car at the mean of the points, turned by the number of points, and a weak pedestrian at
    the sensor; without points the pedestrian alone.

    Args:
        canvas: of its network.
        velocity: whether it predicts velocities: the mean of the fourth and fifth feature.
        moved: metres by which boxes are moved along x.
    """

    def __init__(
        self, canvas: PointCanvas = CANVAS, velocity: bool = False, moved: float = 0.0
    ) -> None:
        self.canvas: AnyCanvas = canvas
        self.velocity, self.moved = velocity, moved
        self.vocabulary = Vocabulary(
            classes={"boxes_3d": ("Pedestrian", "Car")},
            colours={"boxes_3d": ((255, 40, 40), (40, 255, 40))},
        )
        self.heads: Mapping[str, HeadKind] = {
            "objects": KnownHead(
                type="anchor_3d", task=DETECTION_3D, annotation="boxes_3d", exclusive=False
            )
        }
        self.plugins: tuple[str, ...] = ()
        self.clouds: list[PointCloud] = []

    def predict(self, raws: Sequence[Any]) -> list[Predictions]:
        """See ``Predictor``; the clouds are kept in ``clouds``."""
        self.clouds += raws
        return [{"objects": self._objects(raw.points)} for raw in raws]

    def _objects(self, points: NDArray[np.float32]) -> Detections3d:
        weak = np.array([self.moved, 0, -1, 0.8, 0.6, 1.7, 0], np.float32)
        boxes, scores, classes = [weak], [0.2], [0]
        if len(points):
            yaw = len(points) % 7 - 3
            x, y, z = points[:, :3].mean(axis=0)
            boxes.insert(0, np.array([x + self.moved, y, z, 4, 2, 1.5, yaw], np.float32))
            scores.insert(0, 0.9)
            classes.insert(0, 1)
        return Detections3d(
            boxes=np.stack(boxes),
            scores=np.array(scores, np.float32),
            classes=np.array(classes, np.int64),
            velocity=np.ones((len(boxes), 2), np.float32) if self.velocity else None,
        )
