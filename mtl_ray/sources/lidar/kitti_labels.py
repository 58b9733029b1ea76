"""The label files of KITTI objects.

Frame of their boxes: camera 0, rectified: x right, y down, z front; metres. The location of a box
is the centre of its bottom.
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
WRAPPED = "rotation beyond +-pi, wrapped"
"""Note on an object."""
NO_RECTANGLE = "no box in the image, so that KITTI's metric counts it at no level"
"""Note on an object."""
_COLUMNS = (15, 16)
"""A label has 15 columns, a prediction has its score as the 16th."""
_MOST_OBJECTS = 10_000
_ROUNDING = 0.01
"""Labels are rounded to two decimals: 3.15 may be pi."""
_FAR = 1e5
"""Metres, pixels: larger numbers are invalid."""
_NO_BOX = "-1 -1 -1 -1000 -1000 -1000 -10"
"""Height, width, length, location and rotation of a DontCare."""


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

    The rectangle is around the box as it stands upright at the lidar, in which KITTI's own labels
    were drawn. OpenMMLab's is around a box that is upright at the camera, mostly within a pixel.

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
