"""Reads KITTI objects (Geiger et al. 2012): clouds, labels, calibrations, ground planes, images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.geometry.boxes_3d import count_points
from mtl_ray.geometry.cameras import project
from mtl_ray.inputs.point_cloud import Camera, PointCloud, SensorCalibration, encoded_points
from mtl_ray.layout import CLOUDS
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.class_names import find_class_names
from mtl_ray.sources.folders import find_list, is_image, read_ids, subfolders
from mtl_ray.sources.image_reading import ImageRule, read_image
from mtl_ray.sources.lidar.clouds import read_cloud
from mtl_ray.sources.lidar.config import Kitti
from mtl_ray.sources.lidar.kitti_calibration import IMAGES, ONLY, read_cameras, read_plane
from mtl_ray.sources.lidar.kitti_labels import NO_RECTANGLE, read_labels
from mtl_ray.sources.source import (
    Reading,
    SkippedItem,
    Source,
    UnreadableError,
    as_text,
    fingerprint_of,
)

CLASSES = ("Pedestrian", "Cyclist", "Car")
NO_LABELS = "cloud without a label file, used as one that is not annotated"
"""Note on a frame of training/."""
NO_CLOUD = "labels for a missing cloud"
NOT_THERE = "listed, but its cloud is not there"
NO_IMAGE = "camera image left out"
"""Note on a frame whose image is damaged or too large."""
NO_PLANE = "ground plane left out"
"""Note on a frame whose plane is damaged."""
INTENSITY = "intensity outside 0 to 1, kept as it is; is --features right?"
"""Note on a frame."""
_FAR_M = 100.0
_NEAR_M = 0.001
"""Metres of the camera between which a reduced cloud has points, as in the original converter."""
_LABELS = "label_2"
_ALL_LABELS = "label_all"
"""The labels of a vehicle with several cameras, in the frame of the first; image_2 and label_2 are
then one of them.
"""
_FOLDERS = ("velodyne", "velodyne_reduced", "calib", _LABELS, _ALL_LABELS, "planes", *IMAGES)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The files of a frame, as paths in ROOT, images by folder; empty where there is none."""

    id: str
    cloud: str
    calibration: str
    labels: str
    plane: str
    images: tuple[tuple[str, str], ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Of all files."""
        images = (path for _, path in self.images)
        return (self.cloud, self.calibration, self.labels, self.plane, *images)


@dataclass(frozen=True, slots=True)
class _Reader:
    root: str
    rule: ImageRule
    vocabulary: tuple[str, ...]
    features: int | str
    reduce: bool
    images: bool


def open_kitti(config: Kitti, rule: ImageRule) -> Source:
    """Lists the frames of a split.

    Raises:
        FileNotFoundError: if there is no such list or no folder of clouds.
    """
    root = storage.absolute(config.root)
    part = "testing" if config.split in ("test", "testing") else "training"
    stamps = {
        folder: storage.stamps(storage.join(root, part, folder))
        for folder in _FOLDERS
        if folder in subfolders(storage.join(root, part))
    }
    files = {folder: _by_id(found, root) for folder, found in stamps.items()}
    clouds, reduce = _cloud_folder(config, files, storage.join(root, part))
    ids, skipped = _ids(config.split, root, sorted(files[clouds]))
    labels = _ALL_LABELS if files.get(_ALL_LABELS) else _LABELS
    several = labels == _ALL_LABELS or (not files.get(_LABELS) and bool(files.get(IMAGES[0])))
    images = IMAGES if several else (ONLY,)
    folders = (clouds, "calib", labels, "planes")
    cloud, calib, label, plane = (files.get(name, {}) for name in folders)
    frames = [
        _Frame(
            *(id_, cloud.get(id_, ""), calib.get(id_, ""), label.get(id_, ""), plane.get(id_, "")),
            tuple((name, files.get(name, {}).get(id_, "")) for name in images),
        )
        for id_ in ids
    ]
    skipped += _findings(frames, part)
    if not _has_lists(root):
        orphans = sorted(files.get(labels, {}).keys() - files[clouds].keys())
        skipped += [SkippedItem(files[labels][id_], "", NO_CLOUD) for id_ in orphans]
    frames = [frame for frame in frames if frame.cloud]
    names = find_class_names(root, config.classes) or CLASSES
    at = {path: stamp for found in stamps.values() for path, stamp in found.items()}
    return Source(
        vocabulary=Vocabulary(classes={"boxes_3d": names}),
        records=frames,
        reader=partial(
            _read,
            _Reader(
                root=root,
                rule=rule,
                vocabulary=names,
                features=config.features,
                reduce=reduce,
                images=config.camera_images and rule.needed,
            ),
        ),
        skipped=tuple(skipped),
        fingerprint=fingerprint_of(_identity(frames, root, at, names)),
        layout=CLOUDS,
    )


def _by_id(stamps: Mapping[str, str], root: str) -> dict[str, str]:
    """Paths in ROOT of the files of a folder by the names without suffix."""
    paths = sorted(uri.removeprefix(root).lstrip("/") for uri in stamps)
    return {
        path.rpartition("/")[2].rpartition(".")[0]: path
        for path in paths
        if path.endswith((".bin", ".txt")) or is_image(path)
    }


def _cloud_folder(
    config: Kitti, files: Mapping[str, Mapping[str, str]], folder: str
) -> tuple[str, bool]:
    """The folder of the clouds, and whether points outside the image are to be removed."""
    there = [name for name in _FOLDERS[:2] if files.get(name)]
    if not there:
        raise FileNotFoundError(f"there are no clouds in {folder}/velodyne or velodyne_reduced")
    if config.clouds == "auto":
        return there[-1], False
    if config.clouds in there:
        return config.clouds, False
    if config.clouds == "velodyne":
        raise FileNotFoundError(f"there are no clouds in {folder}/velodyne, but in {there[0]}")
    return "velodyne", True


def _has_lists(root: str) -> bool:
    return any(name.endswith(".txt") for name in storage.names(storage.join(root, "ImageSets")))


def _ids(split: str, root: str, present: Sequence[str]) -> tuple[list[str], list[SkippedItem]]:
    """The ids of a split: of its list; of all clouds if there are no lists, or none of test."""
    lists = storage.names(storage.join(root, "ImageSets"))
    without = split in ("test", "testing") and f"{split}.txt" not in lists
    if without or not _has_lists(root):
        return list(present), []
    listed, notes = read_ids(find_list(root, split, ["ImageSets"]), root)
    known = frozenset(present)
    padded = [name if name in known or not name.isdigit() else name.zfill(6) for name in listed]
    return list(dict.fromkeys(padded)), notes


def _findings(frames: Sequence[_Frame], part: str) -> Iterator[SkippedItem]:
    for frame in frames:
        if not frame.cloud:
            reason = NO_CLOUD if frame.labels else NOT_THERE
            yield SkippedItem(frame.labels or frame.id, "", reason)
        elif not frame.labels and part == "training":
            yield SkippedItem(frame.cloud, "", NO_LABELS, note=True)


def _identity(
    frames: Sequence[_Frame], root: str, stamps: Mapping[str, str], names: Sequence[str]
) -> Iterator[str]:
    yield from names
    for frame in frames:
        for path in frame.paths:
            stamp = stamps.get(storage.join(root, path), "") if path else ""
            yield f"{as_text(path)}\t{stamp}"


def _read(reader: _Reader, frame: _Frame) -> Reading:
    items: list[SkippedItem] = []
    paths = dict(frame.images)
    sized = [
        _with_image(reader, path, each, items) if (path := paths.get(each.name)) else (each, b"")
        for each in _cameras(reader, frame)
    ]
    cameras = tuple(each for each, _ in sized)
    camera = cameras[0]
    calibration = SensorCalibration(
        benchmark="kitti" if len(cameras) == 1 else "",
        cameras=cameras,
        ground=_ground(reader, frame, camera, items),
        notes={"frame": as_text(frame.id)},
    )
    cloud = _cloud(reader, frame, camera, items)
    annotations = {}
    if frame.labels:
        objects, found = _objects(reader, frame, camera, cloud.points)
        annotations["boxes_3d"] = objects
        items += [item for item in found if len(cameras) == 1 or item.reason != NO_RECTANGLE]
    images = tuple(image for _, image in sized)
    points = encoded_points(replace(cloud, calibration=calibration), images)
    return Sample(key=frame.id, inputs={"points": points}, annotations=annotations), items


def _cameras(reader: _Reader, frame: _Frame) -> tuple[Camera, ...]:
    if not frame.calibration:
        raise UnreadableError(frame.cloud, "its calibration is not there")
    try:
        return read_cameras(_content(reader, frame.calibration))
    except ValueError as error:
        raise UnreadableError(
            frame.calibration, f"the calibration cannot be used: {error}"
        ) from None


def _with_image(
    reader: _Reader, path: str, camera: Camera, items: list[SkippedItem]
) -> tuple[Camera, bytes]:
    """The camera with the size of its image, and the image file if it is to be stored."""
    uri = storage.join(reader.root, path)
    try:
        image = read_image(uri, path, reader.rule)
    except UnreadableError as error:
        items.append(replace(error.item, reason=f"{NO_IMAGE}: {error.item.reason}", note=True))
        return camera, b""
    sized = replace(camera, width=image.width, height=image.height)
    return sized, image.data if reader.images else b""


def _ground(
    reader: _Reader, frame: _Frame, camera: Camera, items: list[SkippedItem]
) -> NDArray[np.float64] | None:
    if not frame.plane:
        return None
    try:
        return read_plane(_content(reader, frame.plane), camera.lidar_to_camera)
    except ValueError as error:
        items.append(SkippedItem(frame.plane, "", f"{NO_PLANE}: {error}", note=True))
        return None


def _cloud(reader: _Reader, frame: _Frame, camera: Camera, items: list[SkippedItem]) -> PointCloud:
    uri = storage.join(reader.root, frame.cloud)
    cloud = read_cloud(uri, frame.cloud, reader.features, guessed=True)
    points = cloud.points
    if points.shape[1] > 3 and len(points):
        low, high = float(points[:, 3].min()), float(points[:, 3].max())
        if low < 0 or high > 1:
            found = f"{INTENSITY}: {low:g} to {high:g}"
            items.append(SkippedItem(frame.cloud, "", found, note=True))
    return cloud.with_points(points[seen_by_camera(points, camera)]) if reader.reduce else cloud


def seen_by_camera(points: NDArray[np.float32], camera: Camera) -> NDArray[np.bool_]:
    """(N,) bool: which points (N, >= 3) the camera sees, up to 100 m: those of a reduced cloud."""
    pixels, depth = project(points, camera)
    with np.errstate(invalid="ignore"):
        inside = (pixels > 0) & (pixels < np.array([camera.width, camera.height]))
    return np.asarray(inside.all(axis=1) & (depth > _NEAR_M) & (depth < _FAR_M))


def _objects(
    reader: _Reader, frame: _Frame, camera: Camera, points: NDArray[np.float32]
) -> tuple[Boxes3d, list[SkippedItem]]:
    try:
        objects, items = read_labels(
            _content(reader, frame.labels), frame.labels, camera.lidar_to_camera, reader.vocabulary
        )
    except ValueError as error:
        raise UnreadableError(frame.labels, f"the labels cannot be read: {error}") from None
    in_space = np.isfinite(objects.boxes).all(axis=1)
    counts = np.where(in_space, count_points(points, objects.boxes), -1)
    return replace(objects, num_points=counts.astype(np.int64)), items


def _content(reader: _Reader, path: str) -> bytes:
    try:
        return storage.read(storage.join(reader.root, path))
    except OSError as error:
        reason = error.strerror or str(error) or "cannot be opened"
        raise UnreadableError(path, f"cannot be opened: {reason}") from None
