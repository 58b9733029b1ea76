"""Checks point clouds and boxes in space: points in each box, distances, headings, sizes, and, with
the config of a network, what of it its grid and its anchors reach.

Problems are reported, nothing is changed.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.boxes_3d import BOXES_3D, Boxes3d
from mtl_ray.geometry.boxes_3d import count_points
from mtl_ray.geometry.voxels import cells_of
from mtl_ray.inputs.point_cloud import EncodedPoints, PointCloud
from mtl_ray.inputs.points import POINTS, PointCanvas
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.lidar.config import Anchor3dHead

LEAST_M = 0.05
"""Shorter sides of a box are reported."""
MOST_NUMBERS = 200_000_000
"""Larger clouds are reported and not looked at."""
COLUMNS = ("class", "points", "distance", "yaw", "length", "width", "height", "bottom", "inside")
"""Of ``CloudHealth.objects``: metres from the sensor along the ground; metres; z of the lower side;
whether the centre is in the grid of the network, NaN without a network."""
PER_CLOUD = ("points", "inside", "voxels", "dropped")
"""Of ``CloudHealth.clouds``: points in the grid, voxels, and points that full voxels drop; NaN
without a network."""


@dataclass(frozen=True, kw_only=True)
class CloudNetwork:
    """What of a network the data is compared with.

    Attributes:
        canvas: its grid.
        heads: those that have anchors, by name.
    """

    canvas: PointCanvas
    heads: Mapping[str, Anchor3dHead]


@dataclass(kw_only=True, eq=False)
class CloudHealth:
    """Counts over clouds.

    Attributes:
        clouds: (M, 4) ``PER_CLOUD`` of each.
        objects: (N, 9) ``COLUMNS`` of each valid object that has a class.
        overlaps: by head, (N,) best IoU of an anchor.
        others: names of objects without a class.
        low, high: by feature of a point, its least and greatest value.
        kitti: clouds that KITTI's rules measure.
        problems: (kind, key, text) of the cloud that was looked at last.
        on_image, in_image: objects with a 2-D box, and those that are 25 pixels high: KITTI's
            metric counts no other.
    """

    clouds: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, len(PER_CLOUD))))
    objects: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, len(COLUMNS))))
    overlaps: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)
    on_image: int = 0
    in_image: int = 0
    kitti: int = 0
    problems: list[tuple[str, str, str]] = field(default_factory=list)

    def merge(self, other: "CloudHealth") -> None:
        """Adds the counts of other clouds of the same dataset."""
        self.clouds = np.concatenate([self.clouds, other.clouds])
        self.objects = np.concatenate([self.objects, other.objects])
        for name, found in other.overlaps.items():
            self.overlaps[name] = np.concatenate([self.overlaps.get(name, found[:0]), found])
        self.others.update(other.others)
        for name in other.low:
            self.low[name] = min(self.low.get(name, np.inf), other.low[name])
            self.high[name] = max(self.high.get(name, -np.inf), other.high[name])
        self.on_image += other.on_image
        self.in_image += other.in_image
        self.kitti += other.kitti

    def column(self, name: str, label: int | None = None) -> NDArray[np.float64]:
        """A column of the objects, of all or of one class."""
        chosen = slice(None) if label is None else self.objects[:, 0] == label
        found: NDArray[np.float64] = self.objects[chosen, COLUMNS.index(name)]
        return found

    def counts(self, classes: int) -> NDArray[np.int64]:
        """(C,) objects of each class."""
        return np.bincount(self.objects[:, 0].astype(np.int64), minlength=classes)


def look_at_cloud(
    encoded: EncodedPoints,
    value: Boxes3d | None,
    key: str,
    vocabulary: Vocabulary,
    network: CloudNetwork | None,
) -> tuple[CloudHealth, bytes]:
    """Counts one cloud and its objects; gives the counts and the hash of its points."""
    found = CloudHealth()
    content = hashlib.blake2b(encoded.data, digest_size=16).digest()
    try:
        cloud = POINTS.decode(encoded, MOST_NUMBERS)
    except ValueError as error:
        found.problems.append(("damaged cloud", key, str(error)))
        return found, content
    if not len(cloud.points):
        found.problems.append(("cloud without points", key, ""))
    for place, name in enumerate(cloud.features if len(cloud.points) else ()):
        found.low[name] = float(cloud.points[:, place].min())
        found.high[name] = float(cloud.points[:, place].max())
    found.clouds = _cloud_row(cloud, network)
    if value is not None:
        found.kitti = int(cloud.calibration.benchmark == "kitti")
        _look_at_objects(found, cloud, value, key, vocabulary, network)
    return found, content


def _cloud_row(cloud: PointCloud, network: CloudNetwork | None) -> NDArray[np.float64]:
    """(1, 4) ``PER_CLOUD``."""
    if network is None:
        return np.array([[len(cloud.points), np.nan, np.nan, np.nan]])
    cells = cells_of(cloud.points, network.canvas.grid)
    cells = cells[cells[:, 0] >= 0]
    counts = np.unique(cells, axis=0, return_counts=True)[1]
    dropped = np.maximum(counts - network.canvas.max_points, 0).sum()
    return np.array([[len(cloud.points), len(cells), len(counts), dropped]], np.float64)


def _look_at_objects(
    found: CloudHealth,
    cloud: PointCloud,
    value: Boxes3d,
    key: str,
    vocabulary: Vocabulary,
    network: CloudNetwork | None,
) -> None:
    count = len(value.classes)
    found.others.update(value.names[count:])
    boxes = value.boxes[:count].astype(np.float64)
    whole = _faults(found, boxes, value, key)
    heights = value.boxes_2d[:count, 3] - value.boxes_2d[:count, 1]
    found.on_image = int(np.isfinite(heights).sum())
    found.in_image = int((heights >= 25).sum())
    boxes, classes = boxes[whole], value.classes[whole]
    points = count_points(cloud.points, boxes)
    for index in np.flatnonzero(points == 0).tolist():
        said = _described(int(np.flatnonzero(whole)[index]), value)
        found.problems.append(("box without points", key, said))
    inside: NDArray[np.float64] = np.full(len(boxes), np.nan)
    if network is not None:
        low, high = (
            np.array(corner[:2]) for corner in (network.canvas.minimum, network.canvas.maximum)
        )
        within = (boxes[:, :2] > low) & (boxes[:, :2] < high)
        inside = np.asarray(within.all(axis=1), np.float64)
        names = [vocabulary.classes[BOXES_3D.name][label] for label in classes]
        found.overlaps = {
            name: head.best_overlaps(boxes, names) for name, head in network.heads.items()
        }
    found.objects = np.column_stack(
        [
            classes,
            points,
            np.hypot(boxes[:, 0], boxes[:, 1]),
            boxes[:, 6],
            boxes[:, 3:6],
            boxes[:, 2] - boxes[:, 5] / 2,
            inside,
        ]
    )


def _faults(
    found: CloudHealth, boxes: NDArray[np.float64], value: Boxes3d, key: str
) -> NDArray[np.bool_]:
    """Reports invalid boxes; True for boxes of a size."""
    finite = np.isfinite(boxes).all(axis=1)
    whole = np.asarray(finite & (boxes[:, 3:6] > 0).all(axis=1))
    rows = np.column_stack([boxes, value.classes])
    _, first = np.unique(rows, axis=0, return_index=True)
    odd = {
        "box without a finite number": ~finite,
        "empty box": finite & ~whole,
        "box with a side below 5 cm": whole & (boxes[:, 3:6] < LEAST_M).any(axis=1),
        "yaw beyond pi": finite & (np.abs(boxes[:, 6]) > np.pi + 1e-4),
        "same box twice": whole & ~np.isin(np.arange(len(boxes)), first),
    }
    for kind, which in odd.items():
        for index in np.flatnonzero(which).tolist():
            found.problems.append((kind, key, _described(index, value)))
    return np.asarray(whole, np.bool_)


def _described(index: int, value: Boxes3d) -> str:
    numbers = " ".join(f"{number:.5g}" for number in value.boxes[index])
    return f"{value.names[index]} {index + 1}, x y z length width height yaw = {numbers}"


def encoded_cloud(inputs: Mapping[str, Any]) -> EncodedPoints | None:
    """The cloud of a sample, if it has one."""
    found: EncodedPoints | None = inputs.get(POINTS.name)
    return found
