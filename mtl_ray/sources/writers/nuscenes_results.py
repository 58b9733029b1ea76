"""Predictions as the results JSON of nuScenes' detection task
(https://www.nuscenes.org/object-detection).

A box is in the global frame: translation of its centre, size as width, length, height, rotation as
a quaternion w, x, y, z, velocity along x and y. Its attribute follows from its speed, as in
OpenMMLab's results: above 0.2 m/s vehicles move and cycles have riders, else pedestrians stand and
buses are stopped.
"""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.inputs.point_cloud import SensorCalibration
from mtl_ray.sources.lidar.objects import rotations

MOST_BOXES = 500
"""Of a sample; more are refused by the benchmark, so the best are kept."""
DEFAULT_ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    {
        "car": "vehicle.parked",
        "truck": "vehicle.parked",
        "construction_vehicle": "vehicle.parked",
        "bus": "vehicle.moving",
        "trailer": "vehicle.parked",
        "barrier": "",
        "motorcycle": "cycle.without_rider",
        "bicycle": "cycle.without_rider",
        "pedestrian": "pedestrian.moving",
        "traffic_cone": "",
    }
)
"""The attribute of each class where its speed decides nothing; "" for classes without any."""
_MOVING_MPS = 0.2
_FAST = {
    **dict.fromkeys(("car", "truck", "construction_vehicle", "bus", "trailer"), "vehicle.moving"),
    **dict.fromkeys(("bicycle", "motorcycle"), "cycle.with_rider"),
}
_SLOW = {"pedestrian": "pedestrian.standing", "bus": "vehicle.stopped"}


def attribute_of(name: str, speed: float) -> str:
    """The attribute of a class at a speed in metres per second; at no known speed the default."""
    default = DEFAULT_ATTRIBUTES.get(name, "")
    return (_FAST if speed > _MOVING_MPS else _SLOW if speed >= 0 else {}).get(name, default)


def result_boxes(
    calibration: SensorCalibration,
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    names: Sequence[str],
    velocity: NDArray[np.floating] | None = None,
) -> list[dict[str, Any]]:
    """The boxes of one sample in the results JSON, the best first, at most ``MOST_BOXES``.

    Args:
        calibration: with ``lidar_to_ego``, ``ego_to_global`` and the note ``token``.
        boxes: (N, 7) in the frame of the lidar.
        scores: (N,).
        names: N class names.
        velocity: (N, 2) metres per second in the frame of the lidar; None or NaN where it is not
            predicted, which becomes 0.

    Raises:
        ValueError: if the calibration lacks a pose or the token.
    """
    if calibration.lidar_to_ego is None or calibration.ego_to_global is None:
        raise ValueError(
            "results of nuScenes are in the global frame; the calibration of the cloud has no "
            "lidar_to_ego or no ego_to_global"
        )
    token = calibration.notes.get("token", "")
    if not token:
        raise ValueError("results of nuScenes need the token of each sample; the cloud has none")
    best = np.argsort(-np.asarray(scores, np.float64), kind="stable")[:MOST_BOXES]
    chosen = np.asarray(boxes, np.float64)[best].reshape(-1, 7)
    to_global = calibration.ego_to_global @ calibration.lidar_to_ego
    centres = chosen[:, :3] @ to_global[:3, :3].T + to_global[:3, 3]
    turned = quaternions(to_global[:3, :3] @ _about_z(chosen[:, 6]))
    known = np.zeros((len(names), 2)) if velocity is None else np.asarray(velocity, np.float64)
    flat = np.nan_to_num(known[best].reshape(-1, 2))
    speeds = flat @ to_global[:2, :2].T  # of a motion in the plane of the lidar
    return [
        {
            "sample_token": token,
            "translation": centres[row].tolist(),
            "size": chosen[row, [4, 3, 5]].tolist(),
            "rotation": turned[row].tolist(),
            "velocity": speeds[row].tolist(),
            "detection_name": names[place],
            "detection_score": float(scores[place]),
            "attribute_name": attribute_of(names[place], float(np.hypot(*speeds[row]))),
        }
        for row, place in enumerate(best)
    ]


def write_nuscenes_results(
    uri: str, results: Mapping[str, Sequence[Mapping[str, Any]]], *, cameras: bool = False
) -> None:
    """Writes the file of all samples.

    Args:
        uri: of the JSON file.
        results: ``result_boxes`` of each sample by its token; a sample without boxes has an empty
            list.
        cameras: whether images were used too.
    """
    used = {"lidar": True, "camera": cameras, "radar": False, "map": False, "external": False}
    content = {
        "meta": {f"use_{name}": value for name, value in used.items()},
        "results": {token: list(rows) for token, rows in results.items()},
    }
    storage.write(uri, json.dumps(content, separators=(",", ":"), allow_nan=False).encode())


def _about_z(yaw: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3, 3) rotations about z."""
    zero = np.zeros(len(yaw))
    return rotations(np.stack([np.cos(yaw / 2), zero, zero, np.sin(yaw / 2)], axis=1))


def quaternions(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 4) unit quaternions w, x, y, z of (N, 3, 3) rotations, with w >= 0.

    The largest of the four is computed from the diagonal, the others from it, so that none is a
    small difference of large numbers (Shepperd 1978).
    """
    m = matrices
    diagonal = np.stack([m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]], axis=1)
    trace = diagonal.sum(axis=1)
    squares = np.column_stack([1 + trace, 1 - trace[:, None] + 2 * diagonal])  # 4 q^2
    largest = squares.argmax(axis=1)
    minus = [(m[:, j, i] - m[:, i, j]) for i, j in ((1, 2), (2, 0), (0, 1))]  # 4 w x, 4 w y, 4 w z
    plus = [(m[:, j, i] + m[:, i, j]) for i, j in ((1, 2), (2, 0), (0, 1))]  # 4 y z, 4 z x, 4 x y
    rows = np.stack(
        [
            np.stack([squares[:, 0], minus[0], minus[1], minus[2]], axis=1),
            np.stack([minus[0], squares[:, 1], plus[2], plus[1]], axis=1),
            np.stack([minus[1], plus[2], squares[:, 2], plus[0]], axis=1),
            np.stack([minus[2], plus[1], plus[0], squares[:, 3]], axis=1),
        ],
        axis=1,
    )  # (N, 4, 4), row k is 4 q_k q
    found = rows[np.arange(len(m)), largest]
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(np.where(found[:, :1] < 0, -found, found), np.float64)
