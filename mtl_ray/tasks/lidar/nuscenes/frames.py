"""Boxes of the lidar's frame as the nuScenes metric reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.geometry.boxes_3d import wrap_angle
from mtl_ray.inputs.point_cloud import SensorCalibration
from mtl_ray.tasks.lidar.decode import Detections3d
from mtl_ray.tasks.lidar.nuscenes.columns import MOST_BOXES, NuscenesColumns, NuscenesFrame, Racks

RACK = "bicycle_rack"
"""How the names of the racks end."""
MOVING = 0.2
"""Metres per second above which an object is said to move."""
_VEHICLES = frozenset({"car", "construction_vehicle", "bus", "truck", "trailer"})
_CYCLES = frozenset({"bicycle", "motorcycle"})


def nuscenes_frame(
    gt: Boxes3d, found: Detections3d, classes: Sequence[str], calibration: SensorCalibration
) -> NuscenesFrame:
    """The objects and detections of one cloud, in the global frame if its pose is known, else in
    that of the vehicle or the lidar. Ranges are rules for data of nuScenes alone.
    """
    place = Place.of(calibration)
    best = np.sort(np.argsort(-found.scores, kind="stable")[:MOST_BOXES])
    boxes, labels = found.boxes[best].astype(np.float64), found.classes[best]
    velocity = np.full((len(best), 2), np.nan)
    if found.velocity is not None:
        velocity = found.velocity[best].astype(np.float64)
    if place.vehicle is not None:
        velocity = np.nan_to_num(velocity)  # as the results of nuScenes are written
    velocity = place.directions(velocity)
    detections = NuscenesColumns(
        classes=labels,
        centres=place.points(boxes[:, :3]),
        sizes=boxes[:, 3:6],
        yaw=place.yaws(boxes[:, 6]),
        velocity=velocity,
        attributes=guessed_attributes([classes[each] for each in labels], velocity),
        scores=found.scores[best].astype(np.float64),
        state=np.zeros(len(best), np.int64),
        frames=np.zeros(len(best), np.int64),
    )
    return NuscenesFrame(
        gt=object_columns(gt, classes, place),
        found=detections.judged(classes, place.vehicle, racks_of(gt, place)),
    )


def object_columns(gt: Boxes3d, classes: Sequence[str], place: "Place") -> NuscenesColumns:
    """The objects of one cloud that have a class."""
    count = len(gt.classes)
    boxes = gt.boxes[:count].astype(np.float64)
    found = NuscenesColumns(
        classes=gt.classes,
        centres=place.points(boxes[:, :3]),
        sizes=boxes[:, 3:6],
        yaw=place.object_yaws(boxes[:, 6]),
        velocity=place.object_velocities(gt.velocity[:count].astype(np.float64)),
        attributes=np.array(gt.attributes[:count], np.str_).reshape(count),
        scores=np.zeros(count),
        state=np.zeros(count, np.int64),
        frames=np.zeros(count, np.int64),
    )
    racks = racks_of(gt, place)
    return found.judged(classes, place.vehicle, racks, gt.num_points[:count])


def racks_of(gt: Boxes3d, place: "Place") -> Racks:
    """The bicycle racks of one cloud; they have no class."""
    is_rack = np.array([name.endswith(RACK) for name in gt.names], np.bool_)
    boxes = gt.boxes[is_rack].astype(np.float64)
    yaw = place.object_yaws(boxes[:, 6])
    turn = np.zeros((len(boxes), 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(yaw)
    turn[:, 1, 0], turn[:, 0, 1] = np.sin(yaw), -np.sin(yaw)
    turn[:, 2, 2] = 1
    return Racks(
        centres=place.points(boxes[:, :3]),
        rotations=turn,
        sizes=boxes[:, 3:6],
    )


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
class Place:
    """From the lidar's frame to the one of the metric.

    The lidar is never quite level. A prediction turns with it, as in the results that are written
    of it. Objects of nuScenes are upright and move level in the global frame, so they are turned
    back exactly as they were stated there; of other data nothing is known of that.

    Attributes:
        matrix: (4, 4).
        vehicle: (3,) where the vehicle is in it; None if the data knows no ranges.
    """

    matrix: NDArray[np.float64]
    vehicle: NDArray[np.float64] | None

    @staticmethod
    def of(calibration: SensorCalibration) -> "Place":
        """The one of a cloud."""
        matrix, vehicle = np.eye(4), np.zeros(3)
        if calibration.lidar_to_ego is not None:
            matrix = calibration.lidar_to_ego
            if calibration.ego_to_global is not None:
                matrix = calibration.ego_to_global @ matrix
                vehicle = calibration.ego_to_global[:3, 3]
        return Place(matrix, vehicle if calibration.benchmark == "nuscenes" else None)

    def points(self, xyz: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 3)."""
        return np.asarray(xyz @ self.matrix[:3, :3].T + self.matrix[:3, 3], np.float64)

    def directions(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 2) of level directions."""
        return np.asarray(xy @ self.matrix[:2, :2].T, np.float64)

    def yaws(self, yaw: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) of headings."""
        heading = self.directions(np.column_stack([np.cos(yaw), np.sin(yaw)]))
        return np.arctan2(heading[:, 1], heading[:, 0])

    def object_yaws(self, yaw: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) of headings of objects."""
        if self.vehicle is None:
            return self.yaws(yaw)
        return wrap_angle(yaw + np.arctan2(self.matrix[1, 0], self.matrix[0, 0]))

    def object_velocities(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 2) of velocities of objects."""
        if self.vehicle is None:
            return self.directions(xy)
        return np.asarray(xy @ np.linalg.pinv(self.matrix[:2, :2]), np.float64)
