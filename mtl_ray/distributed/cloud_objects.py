"""Single objects of a converted split of clouds as samples: the database from which training scenes
get further objects (Yan et al. 2018, SECOND, section 3.2.1). The objects stay where they were.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.annotations.boxes_3d import BOXES_3D, Boxes3d
from mtl_ray.geometry.boxes_3d import points_in_boxes
from mtl_ray.inputs.point_cloud import EncodedPoints, encoded_points
from mtl_ray.inputs.points import POINTS
from mtl_ray.layout import CLOUDS
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.split import Split, open_split
from mtl_ray.sources.lidar.clouds import MOST_NUMBERS
from mtl_ray.sources.lidar.config import CloudObjects
from mtl_ray.sources.source import Reading, Source, UnreadableError, fingerprint_of

_LOWEST_PX, _MOST_OCCLUDED, _MOST_TRUNCATED = 25.0, 2, 0.5
"""Limits of KITTI's level "hard"."""
FEW_POINTS = "object with too few points"
UNKNOWN_DIFFICULTY = "object that KITTI counts at no level"


@dataclass(frozen=True, slots=True)
class _Reader:
    split: Split
    min_points: int
    unknown_difficulty: bool


def open_cloud_objects(config: CloudObjects) -> Source:
    """Lists the objects with a class of a split; only the annotations are read.

    Raises:
        ValueError: if there is no split, or it has no clouds with boxes.
    """
    split = open_split(storage.absolute(config.root))
    layout = split.manifest.layout
    if POINTS not in layout.inputs or BOXES_3D not in layout.annotations:
        raise ValueError(
            f"{config.root} is no split of point clouds with boxes; convert one first, such as "
            "with jobs.convert kitti"
        )
    counts = [len(classes) for classes in split.scan_classes(BOXES_3D.name)]
    blocks = np.repeat(np.arange(len(split.block_rows)), split.block_rows).tolist()
    rows = [row for count in split.block_rows.tolist() for row in range(count)]
    records = [
        (block, row, index)
        for block, row, count in zip(blocks, rows, counts, strict=True)
        for index in range(count)
    ]
    return Source(
        vocabulary=Vocabulary(
            classes={BOXES_3D.name: split.vocabulary.classes.get(BOXES_3D.name, ())}
        ),
        records=records,
        reader=partial(_read, _Reader(split, config.min_points, config.unknown_difficulty)),
        fingerprint=fingerprint_of([split.manifest.digest]),
        layout=CLOUDS,
    )


def _read(reader: _Reader, record: tuple[int, int, int]) -> Reading:
    block, row, index = record
    sample = reader.split.read_row(block, row)
    encoded: EncodedPoints = sample.inputs[POINTS.name]
    found: Boxes3d = sample.annotations[BOXES_3D.name]
    only = found.take(np.array([index]), found.classes[[index]])
    key = f"{sample.key}/{index:03d}-{only.names[0]}"
    if not reader.unknown_difficulty and not has_difficulty(only)[0]:
        raise _left_out(key, UNKNOWN_DIFFICULTY)
    cloud = POINTS.decode(encoded, MOST_NUMBERS)
    points = cloud.points[points_in_boxes(cloud.points, only.boxes)[0]]
    if len(points) < reader.min_points:
        raise _left_out(key, f"{FEW_POINTS}: {len(points)}")
    only = replace(only, num_points=np.array([len(points)], np.int64))
    images = (b"",) * len(encoded.images)
    return Sample(
        key=key,
        inputs={POINTS.name: encoded_points(cloud.with_points(points), images)},
        annotations={BOXES_3D.name: only},
    ), []


def _left_out(key: str, reason: str) -> UnreadableError:
    """As a note: such objects are left out on request."""
    error = UnreadableError(key, reason)
    error.item = replace(error.item, note=True)
    return error


def has_difficulty(objects: Boxes3d) -> NDArray[np.bool_]:
    """(N,) whether KITTI counts each object at any level; what is not stated is no hindrance."""
    heights = objects.boxes_2d[:, 3] - objects.boxes_2d[:, 1]
    return np.asarray(
        ~(heights <= _LOWEST_PX)  # true if it is NaN
        & (objects.occlusion <= _MOST_OCCLUDED)
        & (objects.truncation <= _MOST_TRUNCATED)
    )
