"""The text files of KITTI objects: labels, calibrations and ground planes.

Frame of their boxes: camera 0, rectified: x right, y down, z front; metres. The location of a box
is the centre of its bottom. A calibration is read by the names of its lines (files of other
programs have other lines in another order).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.geometry.boxes_3d import wrap_angle
from mtl_ray.geometry.cameras import alpha_of, boxes_2d, kitti_to_lidar, lidar_to_kitti
from mtl_ray.inputs.point_cloud import Camera
from mtl_ray.sources.class_names import text_of
from mtl_ray.sources.source import SkippedItem

DONT_CARE = "DontCare"
"""A region of the image that counts neither for nor against a prediction; it has no box in space.
"""
IMAGE_SIZE = (1242, 375)
"""Width and height in pixels of an image that is not there."""
WRAPPED = "rotation beyond +-pi, wrapped"
"""Note on an object."""
NO_RECTANGLE = "no box in the image, so that KITTI's metric counts it at no level"
"""Note on an object."""
_SAME = {"R_rect": "R0_rect", "Tr_velo_cam": "Tr_velo_to_cam"}
"""The names of lines in KITTI's tracking data."""
_COLUMNS = (15, 16)
"""A label has 15 columns, a prediction has its score as the 16th."""
_MOST_OBJECTS = 10_000
_ROUNDING = 0.01
"""Labels are rounded to two decimals: 3.15 may be pi."""
_FAR = 1e5
"""Metres, pixels: larger numbers are invalid."""
_NO_BOX = "-1 -1 -1 -1000 -1000 -1000 -10"
"""Height, width, length, location and rotation of a DontCare."""


def read_calibration(data: bytes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The calibration of camera 2.

    Args:
        data: a file with lines ``P2: 12 numbers``, ``R0_rect: 9 numbers`` and ``Tr_velo_to_cam: 12
            numbers``, in any order.

    Returns:
        lidar_to_camera (4, 4), to the rectified frame of camera 0: R0_rect Tr_velo_to_cam; and
        projection (3, 4): P2.

    Raises:
        ValueError: in one sentence, if a line is missing or damaged.
    """
    found: dict[str, list[str]] = {}
    for line in text_of(data).splitlines():
        name, *numbers = line.replace(":", " ").split() or [""]
        found.setdefault(_SAME.get(name, name), numbers)
    shapes = {"P2": (3, 4), "R0_rect": (3, 3), "Tr_velo_to_cam": (3, 4)}
    if missing := [name for name in shapes if name not in found]:
        raise ValueError(f"its lines {', '.join(missing)} are missing")
    projection, rectify, velo = (
        _matrix(name, found[name], shape) for name, shape in shapes.items()
    )
    lidar_to_camera = np.eye(4)
    lidar_to_camera[:3] = rectify @ velo
    if abs(np.linalg.det(lidar_to_camera)) < 1e-6:
        raise ValueError("R0_rect or Tr_velo_to_cam is no rotation")
    return lidar_to_camera, projection


def _matrix(name: str, numbers: Sequence[str], shape: tuple[int, int]) -> NDArray[np.float64]:
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        raise ValueError(f"its line {name} has something else than numbers") from None
    if len(values) != shape[0] * shape[1] or not all(map(math.isfinite, values)):
        raise ValueError(f"its line {name} does not have {shape[0] * shape[1]} finite numbers")
    return np.array(values).reshape(shape)


def read_plane(data: bytes, lidar_to_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ground: (4,) a, b, c, d of a x + b y + c z + d = 0 in the frame of the lidar; c is not
    negative.

    Args:
        data: a file whose fourth line is the plane in the frame of the camera.
        lidar_to_camera: (4, 4).

    Raises:
        ValueError: in one sentence, if it has another form.
    """
    lines = text_of(data).splitlines()
    if len(lines) < 4:
        raise ValueError("a plane has four lines, the fourth with its four numbers")
    plane = _matrix("4", lines[3].split(), (1, 4))[0] @ lidar_to_camera
    norm = float(np.linalg.norm(plane[:3]))
    if norm < 1e-6:
        raise ValueError("the normal of its plane is 0")
    return np.asarray(plane / (norm if plane[2] >= 0 else -norm), np.float64)


@dataclass(frozen=True, slots=True)
class _Label:
    """A line of a label file; ``values`` are its numbers, without a score."""

    name: str
    values: tuple[float, ...]
    line: int


def read_labels(
    data: bytes, file: str, lidar_to_camera: NDArray[np.float64], vocabulary: Sequence[str]
) -> tuple[Boxes3d, list[SkippedItem]]:
    """The objects of a label file, and a SkippedItem for each invalid line.

    Args:
        data: lines "name truncated occluded alpha x1 y1 x2 y2 height width length x y z rotation
            [score]".
        file: its name, for skipped items.
        lidar_to_camera: (4, 4).
        vocabulary: names of the classes.

    Raises:
        ValueError: in one sentence, if it is no text or absurdly long.
    """
    lines = text_of(data).splitlines()
    if len(lines) > _MOST_OBJECTS:
        raise ValueError(f"it has {len(lines):,} lines, more than {_MOST_OBJECTS:,}")
    labels: list[_Label] = []
    items: list[SkippedItem] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            label = _label(line, number)
        except ValueError as error:
            items.append(SkippedItem(file, f"line {number}", str(error)))
            continue
        labels.append(label)
        items += [SkippedItem(file, f"line {number}", note, note=True) for note in _notes(label)]
    return _boxes(labels, lidar_to_camera, vocabulary), items


def _label(line: str, number: int) -> _Label:
    name, *fields = line.split()
    if len(fields) + 1 not in _COLUMNS:
        raise ValueError(f"a label has 15 or 16 columns: the line has {len(fields) + 1}")
    try:
        values = tuple(float(field) for field in fields[:14])
    except ValueError:
        raise ValueError("has something else than numbers after its name") from None
    if not all(math.isfinite(value) and abs(value) < _FAR for value in values):
        raise ValueError("has numbers that are not finite, or absurdly large")
    if values[1] != int(values[1]):
        raise ValueError(f"its occlusion is no whole number: {values[1]:g}")
    if name != DONT_CARE and min(values[7:10]) <= 0:
        sizes = " ".join(f"{size:g}" for size in values[7:10])
        raise ValueError(f"its size is not positive: height, width, length {sizes}")
    return _Label(name, values, number)


def _notes(label: _Label) -> Iterator[str]:
    if label.name != DONT_CARE and abs(label.values[13]) > math.pi + _ROUNDING:
        yield f"{WRAPPED}: {label.values[13]:g}"
    if not _has_rectangle(label):
        yield NO_RECTANGLE


def _has_rectangle(label: _Label) -> bool:
    left, top, right, bottom = label.values[3:7]
    return left < right and top < bottom


def _boxes(
    labels: Sequence[_Label], lidar_to_camera: NDArray[np.float64], vocabulary: Sequence[str]
) -> Boxes3d:
    values = np.array([label.values for label in labels], np.float64).reshape(-1, 14)
    names = [label.name for label in labels]
    ignored = np.array([name == DONT_CARE for name in names], np.bool_)
    boxes = kitti_to_lidar(values[:, 10:13], values[:, 7:10], values[:, 13], lidar_to_camera)
    boxes[ignored] = np.nan
    alpha = np.where(ignored | (values[:, 2] == -10), np.nan, wrap_angle(values[:, 2]))
    rectangles = values[:, 3:7].copy()
    rectangles[[not _has_rectangle(label) for label in labels]] = np.nan
    return Boxes3d.of(
        boxes,
        names,
        [name for name in vocabulary if name != DONT_CARE],
        ids=tuple(str(label.line) for label in labels),
        alpha=alpha.astype(np.float32),
        truncation=values[:, 0].astype(np.float32),
        occlusion=values[:, 1].astype(np.int64),
        boxes_2d=rectangles.astype(np.float32),
    )


# Lines that are written.


def kitti_lines(
    boxes: NDArray[np.floating],
    names: Sequence[str],
    scores: NDArray[np.floating],
    camera: Camera,
    *,
    unseen: bool = False,
) -> list[str]:
    """Predictions as KITTI's result files have them, 16 columns of four decimals.

    Args:
        boxes: (N, 7) in the frame of the lidar.
        names: N names of classes.
        scores: (N,).
        camera: with the calibration of the frame.
        unseen: whether what the camera does not see has a line, with the box 0 0 0 0 in the image.
    """
    seen = boxes_2d(boxes, camera)
    if unseen:
        seen = np.nan_to_num(seen, nan=0.0)
    shown = np.flatnonzero(np.isfinite(seen).all(axis=1)).tolist()
    places = _places(boxes, camera)
    alpha = alpha_of(boxes)
    return [
        f"{_word(names[row])} -1 -1 {_text([alpha[row], *seen[row]])} {places[row]} "
        f"{_text([scores[row]])}"
        for row in shown
    ]


def label_lines(objects: Boxes3d, camera: Camera) -> list[str]:
    """Objects as KITTI's label files have them, 15 columns, four decimals.

    What is not stated is computed (alpha, the box in the image) or -1 (truncation, occlusion). The
    box of an object that the camera does not see is 0 0 0 0.
    """
    boxes = objects.boxes.astype(np.float64)
    in_space = np.asarray(np.isfinite(boxes).all(axis=1))
    rectangles = objects.boxes_2d.astype(np.float64)
    unknown = in_space & ~np.isfinite(rectangles).all(axis=1)
    rectangles[unknown] = boxes_2d(boxes[unknown], camera)
    rectangles[~np.isfinite(rectangles)] = 0
    alpha = np.where(np.isfinite(objects.alpha), objects.alpha, alpha_of(boxes))
    alpha[~in_space] = -10
    places = _places(boxes, camera)
    return [
        f"{_word(name)} {objects.truncation[row]:.4g} {objects.occlusion[row]} "
        f"{_text([alpha[row], *rectangles[row]])} {places[row] if in_space[row] else _NO_BOX}"
        for row, name in enumerate(objects.names)
    ]


def _places(boxes: NDArray[np.floating], camera: Camera) -> list[str]:
    """Height, width, length, location and rotation of each box."""
    location, sizes, rotation = lidar_to_kitti(boxes, camera.lidar_to_camera)
    return [
        _text([*size, *place, turn])
        for size, place, turn in zip(sizes, location, rotation, strict=True)
    ]


def _text(numbers: Iterable[float]) -> str:
    return " ".join(f"{number:.4f}" for number in numbers)


def _word(name: str) -> str:
    """A name as one word."""
    return "_".join(name.split()) or "-"


def calibration_lines(camera: Camera) -> list[str]:
    """The calibration of a camera in the lines that KITTI has, in their order: programs read them
    by place.
    """
    projection = _numbers(camera.projection)
    return [
        *(f"P{number}: {projection}" for number in range(4)),
        f"R0_rect: {_numbers(np.eye(3))}",
        f"Tr_velo_to_cam: {_numbers(camera.lidar_to_camera[:3])}",
        f"Tr_imu_to_velo: {_numbers(np.eye(4)[:3])}",
    ]


def plane_lines(ground: NDArray[np.float64], lidar_to_camera: NDArray[np.float64]) -> list[str]:
    """The inverse of ``read_plane``."""
    plane = ground @ np.linalg.inv(lidar_to_camera)
    return ["# Plane", "Width 4", "Height 1", _numbers(plane / np.linalg.norm(plane[:3]))]


def _numbers(matrix: NDArray[np.float64]) -> str:
    return " ".join(f"{value:.12e}" for value in matrix.ravel())
