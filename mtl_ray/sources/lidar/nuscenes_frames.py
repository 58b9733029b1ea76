"""Key frames of nuScenes and Lyft: what is listed of them, and how they are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.inputs.point_cloud import Camera, PointCloud, SensorCalibration, encoded_points
from mtl_ray.samples import Sample
from mtl_ray.sources.lidar.clouds import read_cloud
from mtl_ray.sources.lidar.kitti import NO_IMAGE
from mtl_ray.sources.lidar.nuscenes_tables import NuscenesAnnotation
from mtl_ray.sources.lidar.objects import FoundBox, inverse, known_points, rotations, to_boxes_3d
from mtl_ray.sources.lidar.sweeps import FEATURES, Sweep, with_sweeps
from mtl_ray.sources.source import Reading, SkippedItem

ABSENT = "cloud not there, used as an empty one for its annotations"
"""Note on a key frame."""


@dataclass(frozen=True, slots=True, eq=False)
class KeyFrame:
    """A record: all that is read of a key frame, but its files.

    Attributes:
        token, scene: of its rows; the scene's name.
        time: microseconds.
        file: of the cloud.
        lidar_to_ego, ego_to_global: (4, 4).
        sweeps: earlier ones, the latest first.
        cameras: calibrations, and the file of each image.
        objects: annotations; None if the dataset has none.
        velocity: (N, 3) float64 of the objects in the global frame.
    """

    token: str
    scene: str
    time: float
    file: str
    lidar_to_ego: NDArray[np.float64]
    ego_to_global: NDArray[np.float64]
    sweeps: tuple[Sweep, ...]
    cameras: tuple[tuple[Camera, str], ...]
    objects: tuple[tuple[NuscenesAnnotation, str, str], ...] | None
    velocity: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyFrameRules:
    """How key frames are read.

    Attributes:
        root: the folder that the files are in.
        classes: names of the classes.
        benchmark: of the calibrations.
        sweeps: how many are added.
        images: whether the images of the cameras are read.
        needed: False if a cloud may be missing, which is then empty.
        files: False if no files are read at all.
        class_of: the class of a category.
    """

    root: str
    classes: tuple[str, ...]
    benchmark: str
    sweeps: int
    images: bool
    needed: bool = True
    files: bool = True
    class_of: Mapping[str, str] = field(default_factory=dict)


def read_key_frame(rules: KeyFrameRules, frame: KeyFrame) -> Reading:
    """The sample of a record."""
    calibration = SensorCalibration(
        benchmark=rules.benchmark,
        cameras=tuple(camera for camera, _ in frame.cameras),
        lidar_to_ego=frame.lidar_to_ego,
        ego_to_global=frame.ego_to_global,
        notes={"token": frame.token, "scene": frame.scene, "microseconds": f"{frame.time:.0f}"},
    )

    cloud, items = _cloud(rules, frame, calibration)
    images = _images(rules, frame, items)
    annotations = {}
    if frame.objects is not None:
        annotations["boxes_3d"], invalid = to_boxes_3d(
            _found(frame, rules.class_of, items), rules.classes, frame.token
        )
        items += invalid
    return Sample(
        key=frame.token, inputs={"points": encoded_points(cloud, images)}, annotations=annotations
    ), items


def _cloud(
    rules: KeyFrameRules, frame: KeyFrame, calibration: SensorCalibration
) -> tuple[PointCloud, list[SkippedItem]]:
    """The points, and notes."""

    def read(file: str) -> NDArray[np.float32]:
        return read_cloud(storage.join(rules.root, file), file, len(FEATURES)).points

    absent = not rules.files
    if rules.files and not rules.needed:
        absent = not storage.exists(storage.join(rules.root, frame.file))
    if absent:
        empty = PointCloud(
            points=np.zeros((0, len(FEATURES)), np.float32),
            features=FEATURES,
            calibration=calibration,
        )
        return empty, [SkippedItem(frame.file, "", ABSENT, note=True)] if rules.files else []
    return with_sweeps(read(frame.file), frame.sweeps, rules.sweeps, read, calibration)


def _images(rules: KeyFrameRules, frame: KeyFrame, items: list[SkippedItem]) -> tuple[bytes, ...]:
    """The image of each camera; those that cannot be read go to ``items``."""
    if not rules.images or not rules.files:
        return ()
    found = list[bytes]()
    for _, file in frame.cameras:
        try:
            found.append(storage.read(storage.join(rules.root, file)))
        except OSError as error:
            reason = f"{NO_IMAGE}: {error.strerror or error}"
            items.append(SkippedItem(file, "", reason, note=True))
            found.append(b"")
    return tuple(found)


def _found(
    frame: KeyFrame, class_of: Mapping[str, str], items: list[SkippedItem]
) -> list[FoundBox]:
    """The objects of a frame in the frame of the lidar; those of no category go to ``items``."""
    assert frame.objects is not None
    places = np.array([each.place for each, _, _ in frame.objects], np.float64).reshape(-1, 10)
    to_lidar = inverse(frame.lidar_to_ego) @ inverse(frame.ego_to_global)
    centres = places[:, :3] @ to_lidar[:3, :3].T + to_lidar[:3, 3]
    with np.errstate(invalid="ignore", divide="ignore"):
        turned = to_lidar[:3, :3] @ rotations(places[:, 6:])  # (N, 3, 3)
    yaws = np.arctan2(-turned[:, 0, 1], turned[:, 0, 0])
    flat = frame.velocity * (1, 1, 0)  # OpenMMLab's converter leaves out how it climbs
    velocity = (flat @ to_lidar[:3, :3].T)[:, :2]
    found = []
    for row, (each, category, attribute) in enumerate(frame.objects):
        if not category:
            reason = f"a row that sample_annotation refers to is missing: {each.instance}"
            items.append(SkippedItem(frame.token, f"annotation {each.token}", reason))
            continue
        width, length, height = places[row, 3:6]
        found.append(
            FoundBox(
                name=class_of.get(category, category),
                box=(*centres[row], length, width, height, yaws[row]),
                where=f"annotation {each.token}",
                id=each.token,
                num_points=known_points(each.lidar_points, each.radar_points),
                velocity=(velocity[row, 0], velocity[row, 1]),
                attribute=attribute,
            )
        )
    return found
