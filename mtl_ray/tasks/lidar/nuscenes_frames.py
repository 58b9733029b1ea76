"""Boxes of the lidar's frame as the nuScenes metric reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.geometry.boxes_3d import points_in_boxes
from mtl_ray.inputs.point_cloud import Calibration
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.lidar.nuscenes_columns import MOST_BOXES, Columns, NuscenesFrame, states

RACK = "bicycle_rack"
"""How the names of the racks end."""
MOVING = 0.2
"""Metres per second above which an object is said to move."""
_VEHICLES = frozenset({"car", "construction_vehicle", "bus", "truck", "trailer"})
_CYCLES = frozenset({"bicycle", "motorcycle"})


def nuscenes_frame(
    truth: Boxes3d, found: Detections3d, classes: Sequence[str], calibration: Calibration
) -> NuscenesFrame:
    """The objects and detections of one cloud, in the global frame if its pose is known, else in
    that of the vehicle or the lidar.
    """
    place = _Place.of(calibration)
    racks = truth.boxes[[name.endswith(RACK) for name in truth.names]]
    count = len(truth.classes)
    objects = _columns(
        truth.boxes[:count],
        truth.classes,
        truth.velocity[:count],
        np.array(truth.attributes[:count], np.str_).reshape(count),
        np.zeros(count),
        truth.num_points[:count],
        racks,
        classes,
        place,
    )
    best = np.sort(np.argsort(-found.scores, kind="stable")[:MOST_BOXES])
    velocity = found.velocity
    if velocity is None:
        velocity = np.full((len(found.boxes), 2), np.nan, np.float32)
    labels = found.classes[best]
    detections = _columns(
        found.boxes[best],
        labels,
        velocity[best],
        guessed_attributes([classes[each] for each in labels], velocity[best]),
        found.scores[best].astype(np.float64),
        np.full(len(best), -1),
        racks,
        classes,
        place,
    )
    return NuscenesFrame(truth=objects, found=detections)


def guessed_attributes(names: Sequence[str], velocity: NDArray[np.floating]) -> NDArray[np.str_]:
    """(N,) the attribute of each detection by its class and speed, as MMDetection3D gives it for
    networks that predict none.
    """
    moving = np.sqrt((velocity.astype(np.float64) ** 2).sum(axis=1)) > MOVING  # False for NaN
    return np.array(
        [_attribute(name, bool(fast)) for name, fast in zip(names, moving, strict=True)], np.str_
    ).reshape(len(names))


def _attribute(name: str, moving: bool) -> str:
    if name in _VEHICLES:
        if moving:
            return "vehicle.moving"
        return "vehicle.stopped" if name == "bus" else "vehicle.parked"
    if name in _CYCLES:
        return "cycle.with_rider" if moving else "cycle.without_rider"
    if name == "pedestrian":
        return "pedestrian.moving" if moving else "pedestrian.standing"
    return ""


@dataclass(frozen=True, eq=False)
class _Place:
    """From the lidar's frame to the one of the metric.

    Attributes:
        matrix: (4, 4).
        vehicle: (3,) where the vehicle is in it.
    """

    matrix: NDArray[np.float64]
    vehicle: NDArray[np.float64]

    @staticmethod
    def of(calibration: Calibration) -> "_Place":
        """The one of a cloud."""
        if calibration.lidar_to_ego is None:
            return _Place(np.eye(4), np.zeros(3))
        if calibration.ego_to_global is None:
            return _Place(calibration.lidar_to_ego, np.zeros(3))
        return _Place(
            calibration.ego_to_global @ calibration.lidar_to_ego, calibration.ego_to_global[:3, 3]
        )

    def points(self, xyz: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 3)."""
        return np.asarray(xyz @ self.matrix[:3, :3].T + self.matrix[:3, 3], np.float64)

    def directions(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 2) of level directions."""
        return np.asarray(xy @ self.matrix[:2, :2].T, np.float64)


def _columns(
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    velocity: NDArray[np.float32],
    attributes: NDArray[np.str_],
    scores: NDArray[np.float64],
    num_points: NDArray[np.int64],
    racks: NDArray[np.float32],
    classes: Sequence[str],
    place: _Place,
) -> Columns:
    wide = boxes.astype(np.float64)
    centres = place.points(wide[:, :3])
    heading = place.directions(np.column_stack([np.cos(wide[:, 6]), np.sin(wide[:, 6])]))
    from_vehicle = centres[:, :2] - place.vehicle[:2]
    distances = np.sqrt((from_vehicle**2).sum(axis=1))
    in_rack = points_in_boxes(wide, racks).any(axis=0)
    return Columns(
        classes=labels,
        centres=centres,
        sizes=wide[:, 3:6],
        yaw=np.arctan2(heading[:, 1], heading[:, 0]),
        velocity=place.directions(velocity.astype(np.float64)),
        attributes=attributes,
        scores=scores,
        state=states(classes, labels, distances, num_points, in_rack),
        frames=np.zeros(len(labels), np.int64),
    )
