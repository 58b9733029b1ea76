"""Objects in space as the readers of datasets find them, checked and put together; and poses.

Frame of the lidar, as of ``annotations/boxes_3d.py``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.geometry.boxes_3d import wrap_angle
from mtl_ray.sources.class_names import read_class_names
from mtl_ray.sources.source import SkippedItem, as_text

WRAPPED = "rotation beyond +-pi, wrapped"
"""Note on an object."""
_NAN = math.nan
_FAR = 1e5
"""Metres, pixels: larger numbers are invalid."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundBox:
    """One object as a dataset states it; see ``Boxes3d``.

    Attributes:
        name: of its class.
        box: x, y, z of its centre, length, width, height, yaw; None for a region of the image.
        where: what it is called in messages.
        id, num_points, velocity, attribute, truncation, occlusion, alpha, box_2d: as of
            ``Boxes3d``, by default not known.
    """

    name: str
    box: Sequence[float] | None
    where: str
    id: str = ""
    num_points: int = -1
    velocity: tuple[float, float] = (_NAN, _NAN)
    attribute: str = ""
    truncation: float = -1.0
    occlusion: int = -1
    alpha: float = _NAN
    box_2d: tuple[float, float, float, float] = (_NAN, _NAN, _NAN, _NAN)


def known_points(lidar: int, radar: int) -> int:
    """The number of points of an object of nuScenes: those of the lidar; -1 (not known) if only a
    radar has some, because it is then annotated as visible, which 0 points mean it is not.
    """
    return lidar if lidar > 0 or radar <= 0 else -1


def to_boxes_3d(
    found: Sequence[FoundBox], vocabulary: Sequence[str], file: str
) -> tuple[Boxes3d, list[SkippedItem]]:
    """The valid objects, and a SkippedItem for each other one.

    Args:
        found: the objects.
        vocabulary: names of the classes.
        file: what they are of, for skipped items.
    """
    valid, items = list[FoundBox](), list[SkippedItem]()
    for each in found:
        reason = _invalid(each)
        if reason:
            items.append(SkippedItem(file, each.where, reason))
            continue
        valid.append(each)
        if each.box is not None and abs(each.box[6]) > math.pi + 1e-3:
            items.append(SkippedItem(file, each.where, f"{WRAPPED}: {each.box[6]:g}", note=True))
    boxes = np.array([[_NAN] * 7 if each.box is None else each.box for each in valid], np.float64)
    boxes = boxes.reshape(-1, 7)
    beyond = np.abs(boxes[:, 6]) > math.pi
    boxes[beyond, 6] = wrap_angle(boxes[beyond, 6])
    return Boxes3d.of(
        boxes,
        [as_text(each.name) for each in valid],
        vocabulary,
        ids=tuple(as_text(each.id) for each in valid),
        num_points=np.array([each.num_points for each in valid], np.int64),
        velocity=np.array([each.velocity for each in valid], np.float32).reshape(-1, 2),
        attributes=tuple(as_text(each.attribute) for each in valid),
        truncation=np.array([each.truncation for each in valid], np.float32),
        occlusion=np.array([each.occlusion for each in valid], np.int64),
        alpha=np.array([each.alpha for each in valid], np.float32),
        boxes_2d=np.array([each.box_2d for each in valid], np.float32).reshape(-1, 4),
    ), items


def _invalid(each: FoundBox) -> str:
    """Why an object is not used; empty if it is."""
    if each.box is None:
        return ""
    if not all(map(math.isfinite, each.box)) or max(map(abs, each.box)) > _FAR:
        return "has numbers that are not finite, or absurdly large"
    if min(each.box[3:6]) <= 0:
        sizes = " ".join(f"{size:g}" for size in each.box[3:6])
        return f"its size is not positive: length, width, height {sizes}"
    return ""


def read_classes(uri: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    """The names in a file, or the usual ones."""
    return usual if uri is None else read_class_names(storage.absolute(uri))


# Poses: (4, 4) float64 matrices from one frame to another.


def pose(rotation: Sequence[float], translation: Sequence[float]) -> NDArray[np.float64]:
    """(4, 4) of a quaternion w, x, y, z and a translation in metres.

    Raises:
        ValueError: in one sentence, if they are no finite numbers, or the quaternion is 0.
    """
    values = np.array([*rotation, *translation], np.float64)
    if values.shape != (7,) or not np.isfinite(values).all():
        raise ValueError("its rotation and translation are not four and three finite numbers")
    norm = float(np.linalg.norm(values[:4]))
    if norm < 1e-6:
        raise ValueError("its rotation is 0")
    matrix = np.eye(4)
    matrix[:3, :3] = rotations(values[None, :4])[0]
    matrix[:3, 3] = values[4:]
    return matrix


def rotations(quaternions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3, 3) of (N, 4) quaternions w, x, y, z, which are normalised."""
    unit = quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)
    w, x, y, z = unit.T
    rows = [
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of a rotation and translation (4, 4)."""
    found = np.eye(4)
    found[:3, :3] = matrix[:3, :3].T
    found[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return found


def sensor_to_sensor(
    own: Sequence[NDArray[np.float64]], key: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """(4, 4) from the frame of one sensor to that of another, at other times.

    Args:
        own: sensor to vehicle, and vehicle to global frame, when the sensor measured.
        key: the same of the other sensor.
    """
    return inverse(key[0]) @ inverse(key[1]) @ own[1] @ own[0]
