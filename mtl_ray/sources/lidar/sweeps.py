"""Key frames with the earlier sweeps of the same lidar.

Points of a sweep go from the lidar as it was then to the vehicle, to the global frame, to the
vehicle of the key frame and to its lidar: ``points @ R.T + T``. They get "time", the seconds before
the key frame, as their last feature. Points of sweeps that are nearer to the lidar than 1 m along x
and along y are of the own car, and are removed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.point_cloud import PointCloud, SensorCalibration
from mtl_ray.sources.source import SkippedItem, UnreadableError

FEATURES = ("x", "y", "z", "intensity", "ring")
"""The numbers of a point in files of nuScenes and Lyft."""
_CLOSE = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """An earlier sweep.

    Attributes:
        file: its path in the dataset.
        to_key: (4, 4) float64, from its lidar to that of the key frame.
        lag: seconds before the key frame.
    """

    file: str
    to_key: NDArray[np.float64]
    lag: float


def with_sweeps(
    key_points: NDArray[np.float32],
    sweeps: Sequence[Sweep],
    wanted: int,
    read: Callable[[str], NDArray[np.float32]],
    calibration: SensorCalibration,
) -> tuple[PointCloud, list[SkippedItem]]:
    """The points of a key frame and of up to ``wanted`` earlier sweeps, the latest first.

    A key frame without any earlier sweep, the first of a scene, is repeated in place of them, as
    CenterPoint's training does.

    Args:
        key_points: (N, 5), see ``FEATURES``.
        sweeps: what is there, the latest first.
        wanted: how many are added.
        read: reads a file into (M, 5) points.
        calibration: of the key frame.

    Returns:
        The cloud, and a note on each sweep that cannot be read or has no time.
    """
    if not wanted:
        return PointCloud(points=key_points, features=FEATURES, calibration=calibration), []
    parts, notes = [_timed(key_points, 0.0)], list[SkippedItem]()
    for sweep in sweeps[:wanted]:
        if not math.isfinite(sweep.lag):
            notes.append(SkippedItem(sweep.file, "", "sweep left out: its time is not known", True))
            continue
        try:
            points = read(sweep.file)
        except UnreadableError as error:
            notes.append(SkippedItem(sweep.file, "", f"sweep left out: {error.item.reason}", True))
            continue
        points = _far(points)
        moved = points[:, :3] @ sweep.to_key[:3, :3].T + sweep.to_key[:3, 3]
        parts.append(_timed(np.column_stack([moved, points[:, 3]]), sweep.lag))
    if not sweeps:
        parts += [_timed(_far(key_points), 0.0)] * wanted
    features = (*FEATURES[:4], "time")
    points = np.concatenate(parts)
    return PointCloud(points=points, features=features, calibration=calibration), notes


def _far(points: NDArray[np.float32]) -> NDArray[np.float32]:
    return points[(np.abs(points[:, :2]) >= _CLOSE).any(axis=1)]


def _timed(points: NDArray[np.floating], lag: float) -> NDArray[np.float32]:
    return np.column_stack([points[:, :4], np.full(len(points), lag)]).astype(np.float32)
