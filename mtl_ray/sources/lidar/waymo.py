"""The Waymo Open Dataset (Sun et al. 2020), version 1: points of all lidars and both returns.

Frame: the vehicle's, x front, y left, z up, at the time of the frame. The points have x, y, z,
intensity and elongation as measured, and "range_index": the place in the range images of the laser
on the roof, (return x H + row) x W + column, -1 for other lasers. Points in zones without labels
are left out, and objects without a point, as MMDetection3D's converter does. Unlike there, the
rectangle of an object is that in the front camera only, and the difficulty is kept as an attribute.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.inputs.cloud_files import check_points
from mtl_ray.inputs.point_cloud import Camera, PointCloud, SensorCalibration, encoded_points
from mtl_ray.layout import CLOUDS
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.folders import stamps_of, subfolders
from mtl_ray.sources.lidar.dataset_configs import Waymo
from mtl_ray.sources.lidar.objects import FoundBox, inverse, read_classes, to_boxes_3d
from mtl_ray.sources.lidar.waymo_frames import TOP, FrameCamera, Laser, WaymoFrame, read_frame
from mtl_ray.sources.source import Reading, SkippedItem, Source, UnreadableError, fingerprint_of
from mtl_ray.sources.tfrecord_files import find_records, read_record

CLASSES = ("Car", "Pedestrian", "Cyclist")
FEATURES = ("x", "y", "z", "intensity", "elongation", "range_index")
EMPTY = "object without a point, left out"
"""Note on an object."""
_FOLDERS = {"train": "training", "val": "validation", "test": "testing"}
_PREFIXES = {"training": 0, "validation": 1}
_LONGEST_FRAME = 1 << 28
"""Bytes of a record; frames have about five million."""
_TO_CAMERA = np.array(
    [(0.0, -1.0, 0.0, 0.0), (0.0, 0.0, -1.0, 0.0), (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)]
)
"""From Waymo's frame of a camera (x front, y left, z up) to x right, y down, z front."""


@dataclass(frozen=True, slots=True)
class _Record:
    """A frame: its key, and where it lies in which file."""

    key: str
    file: str
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class _Rules:
    folder: str
    classes: tuple[str, ...]
    empty_boxes: bool
    images: bool
    annotated: bool


def open_waymo(config: Waymo) -> Source:
    """Lists the frames of all files in ROOT/SPLIT.

    Raises:
        FileNotFoundError: if there are no files.
    """
    folder, split = _folder(storage.absolute(config.root), config.split)
    files = [name for name in storage.names(folder) if ".tfrecord" in name]
    prefix = _PREFIXES.get(split, 2) if config.prefix is None else config.prefix
    records, skipped = list[_Record](), list[SkippedItem]()
    for number, file in enumerate(files):
        try:
            for frame, (start, length) in enumerate(find_records(storage.join(folder, file))):
                if frame % config.stride == 0:
                    key = f"{prefix}{number:03d}{frame:03d}"
                    records.append(_Record(key, file, start, length))
        except ValueError as error:
            skipped.append(SkippedItem(file, "", str(error)))
    classes = read_classes(config.classes, CLASSES)
    rules = _Rules(
        folder, classes, config.empty_boxes, config.camera_images, not split.startswith("test")
    )
    options = (*classes, str(config.stride), str(config.empty_boxes), str(config.camera_images))
    return Source(
        vocabulary=Vocabulary(classes={"boxes_3d": classes}),
        records=records,
        reader=partial(_read, rules),
        skipped=tuple(skipped),
        fingerprint=fingerprint_of([*options, str(prefix), *files, *stamps_of(folder, files)]),
        layout=CLOUDS,
    )


def _folder(root: str, split: str) -> tuple[str, str]:
    """The folder of the files of a split, and its name."""
    name = _FOLDERS.get(split, split)
    for folder in (
        storage.join(root, name),
        storage.join(root, "waymo_format", name),
        storage.join(root, split),
        root,
    ):
        if any(".tfrecord" in file for file in storage.names(folder)):
            return folder, name
    raise FileNotFoundError(
        f"there are no .tfrecord files in {storage.join(root, name)}; folders in {root}: "
        f"{', '.join(subfolders(root)) or 'none'}"
    )


def _read(rules: _Rules, record: _Record) -> Reading:
    where = f"{record.file} at {record.start}"
    try:
        if record.length > _LONGEST_FRAME:
            raise ValueError(f"the record has {record.length:,} bytes, too many for a frame")
        data = read_record(storage.join(rules.folder, record.file), record.start, record.length)
        frame = read_frame(data, images=rules.images)
        cloud = _cloud(frame)
    except OSError as error:
        raise UnreadableError(where, error.strerror or "cannot be opened") from None
    except ValueError as error:
        raise UnreadableError(where, f"the frame is damaged: {error}") from None
    annotations, items = {}, list[SkippedItem]()
    if rules.annotated:
        found = list(_found(rules, frame, record.key, items))
        annotations["boxes_3d"], invalid = to_boxes_3d(found, rules.classes, record.key)
        items += invalid
    images = tuple(camera.image for camera in frame.cameras) if rules.images else ()
    return Sample(
        key=record.key, inputs={"points": encoded_points(cloud, images)}, annotations=annotations
    ), items


def _cloud(frame: WaymoFrame) -> PointCloud:
    if not frame.lasers:
        raise ValueError("it has no range images of a lidar")
    returns = max(len(laser.returns) for laser in frame.lasers)
    parts = [
        laser_points(laser, which, frame.pose)
        for which in range(returns)
        for laser in frame.lasers
        if which < len(laser.returns)
    ]
    calibration = SensorCalibration(
        cameras=tuple(map(_camera, frame.cameras)),
        lidar_to_ego=np.eye(4),
        ego_to_global=frame.pose,
        notes={"context": frame.context, "microseconds": str(frame.microseconds)},
    )
    points = check_points(np.concatenate(parts))
    return PointCloud(points=points, features=FEATURES, calibration=calibration)


def _camera(camera: FrameCamera) -> Camera:
    projection = np.zeros((3, 4))
    projection[0, 0], projection[1, 1], projection[0, 2], projection[1, 2] = camera.intrinsic
    projection[2, 2] = 1
    return Camera(
        name=camera.name,
        width=camera.width,
        height=camera.height,
        lidar_to_camera=_TO_CAMERA @ inverse(camera.extrinsic),
        projection=projection,
    )


def _found(
    rules: _Rules, frame: WaymoFrame, key: str, items: list[SkippedItem]
) -> Iterator[FoundBox]:
    """The objects of a frame; those without a point become notes."""
    to_vehicle = frame.pose[:3, :3].T
    for place, label in enumerate(frame.labels, start=1):
        where = f"label {label.id or place}"
        if not label.name:
            items.append(SkippedItem(key, where, "its type is not known"))
            continue
        if label.num_points < 1 and not rules.empty_boxes:
            items.append(SkippedItem(key, where, EMPTY, note=True))
            continue
        velocity = to_vehicle @ (*label.speed, 0.0)
        yield FoundBox(
            name=label.name,
            box=label.box,
            where=where,
            id=label.id,
            num_points=label.num_points,
            velocity=(velocity[0], velocity[1]),
            attribute=f"level_{label.level}",
            box_2d=label.box_2d,
        )


# Range images: rows from the top, columns clockwise from the back.


def laser_points(laser: Laser, which: int, frame_pose: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N, 6) points of one return, see ``FEATURES``, in the order of its pixels.

    Args:
        laser: with its range images.
        which: 0 for the first return, 1 for the second.
        frame_pose: (4, 4) of the vehicle at the time of the frame.

    Raises:
        ValueError: if the laser on the roof has no poses.
    """
    image = laser.returns[which]
    rows, columns = np.nonzero((image[..., 0] > 0) & (image[..., 3] != 1))
    xyz = directions(laser, image.shape[1])[rows, columns] * image[rows, columns, :1]
    xyz = xyz @ laser.extrinsic[:3, :3].T + laser.extrinsic[:3, 3]
    index = np.full(len(rows), -1)
    if laser.name == TOP:
        if laser.poses is None or laser.poses.shape[:2] != image.shape[:2]:
            raise ValueError("the laser on the roof has no pose for each pixel")
        poses = laser.poses[rows, columns].astype(np.float64)
        xyz = np.einsum("nij,nj->ni", euler_rotations(poses[:, :3]), xyz) + poses[:, 3:]
        back = inverse(frame_pose)
        xyz = xyz @ back[:3, :3].T + back[:3, 3]
        index = (which * image.shape[0] + rows) * image.shape[1] + columns
    return np.column_stack([xyz, image[rows, columns, 1:3], index]).astype(np.float32)


def directions(laser: Laser, width: int) -> NDArray[np.float64]:
    """(H, W, 3) unit vectors of the pixels in the frame of the laser. Columns go from pi to -pi in
    the frame of the vehicle, so the laser's own heading is taken off.
    """
    heading = np.arctan2(laser.extrinsic[1, 0], laser.extrinsic[0, 0])
    azimuth = np.pi * (1 - (2 * np.arange(width) + 1) / width) - heading  # (W,)
    rise = laser.inclinations[:, None]  # (H, 1)
    return np.stack(
        [
            np.cos(azimuth) * np.cos(rise),
            np.sin(azimuth) * np.cos(rise),
            np.broadcast_to(np.sin(rise), (len(rise), width)),
        ],
        axis=-1,
    )


def euler_rotations(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3, 3) of (N, 3) roll, pitch, yaw: R_z(yaw) R_y(pitch) R_x(roll)."""
    (sr, sp, sy), (cr, cp, cy) = np.sin(angles).T, np.cos(angles).T
    rows = [
        (cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr),
        (sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr),
        (-sp, cp * sr, cp * cr),
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
