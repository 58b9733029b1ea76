"""One frame of an info file of MMDetection3D 1.x, with its boxes in our frame."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.point_cloud import Camera
from mtl_ray.sources.lidar.objects import FoundBox, known_points, sensor_to_sensor
from mtl_ray.sources.lidar.openmmlab_generation import (
    KITTI_CAMERA,
    UNKNOWN,
    InfoGeneration,
    box_2d,
    frame_name,
    lidar_box,
    mapping,
    mappings,
    matrix_of,
    notes_of,
    optional_matrix,
    plane_of,
    text,
    two_numbers,
)
from mtl_ray.sources.lidar.sweeps import Sweep

NUSCENES_SIZE = (1600, 900)
"""Width and height in pixels of the images of nuScenes."""
_MOST_OBJECTS = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoFrame:
    """A frame.

    Attributes:
        key: unique in its file.
        cloud: the path of the cloud as stated.
        sweeps: earlier ones, the latest first; their files as stated.
        cameras: the path of each image as stated, and its calibration; 0 pixels where the file
            does not say how many.
        objects: None if the file has no annotations.
        lidar_to_ego, ego_to_global, ground, notes: as of ``Calibration``.
    """

    key: str
    cloud: str
    sweeps: tuple[Sweep, ...]
    cameras: tuple[tuple[str, Camera], ...]
    objects: tuple[FoundBox, ...] | None
    lidar_to_ego: NDArray[np.float64] | None
    ego_to_global: NDArray[np.float64] | None
    ground: NDArray[np.float64] | None
    notes: Mapping[str, str] = field(default_factory=dict)


def read_second(info: Mapping[str, Any], generation: InfoGeneration, place: int) -> InfoFrame:
    """Of 1.x."""
    images = mapping(info, "images")
    cameras = [
        (text(each["img_path"]), _camera_of(name, each, generation.dataset))
        for name, each in images.items()
        if isinstance(each, dict) and {"img_path", "cam2img", "lidar2cam"} <= each.keys()
    ]
    lidar = mapping(info, "lidar_points")
    to_ego = optional_matrix(lidar.get("lidar2ego"))
    to_global = optional_matrix(info.get("ego2global"))
    plane = info.get("plane")
    ground = None
    if plane is not None and cameras:
        ground = plane_of(plane, cameras[0][1].lidar_to_camera)
    objects = None
    if isinstance(info.get("instances"), list):
        to_camera = cameras[0][1].lidar_to_camera if cameras else None
        objects = _instances(info["instances"], generation, to_camera)
    number = info.get("sample_idx", info.get("sample_id", place))
    return InfoFrame(
        key=text(info.get("token")) or frame_name(generation.dataset, number),
        cloud=generation.cloud(info),
        sweeps=_sweeps_of_second(info, to_ego, to_global),
        cameras=tuple(cameras),
        objects=objects,
        lidar_to_ego=to_ego,
        ego_to_global=to_global,
        ground=ground,
        notes=notes_of(info, "token", "context_name", "timestamp"),
    )


def _camera_of(name: str, image: Mapping[str, Any], dataset: str) -> Camera:
    projection = np.zeros((3, 4))
    given = np.array(image["cam2img"], np.float64)
    projection[:, : given.shape[1]] = given[:3]
    width, height = NUSCENES_SIZE if dataset == "nuscenes" else (0, 0)
    return Camera(
        name=KITTI_CAMERA if dataset == "kitti" else str(name),
        width=int(image.get("width") or width),
        height=int(image.get("height") or height),
        lidar_to_camera=matrix_of(image["lidar2cam"]),
        projection=projection,
    )


def _sweeps_of_second(
    info: Mapping[str, Any],
    to_ego: NDArray[np.float64] | None,
    to_global: NDArray[np.float64] | None,
) -> tuple[Sweep, ...]:
    """The sweeps of nuScenes and Lyft. ``lidar2sensor`` is from the key frame to the sweep."""
    found = []
    for each in mappings(info, "lidar_sweeps"):
        points = mapping(each, "lidar_points")
        if points.get("lidar2sensor") is not None:
            to_key = np.asarray(np.linalg.inv(matrix_of(points["lidar2sensor"])), np.float64)
        elif to_ego is None or to_global is None or points.get("lidar2ego") is None:
            continue
        else:
            own = (matrix_of(points["lidar2ego"]), matrix_of(each["ego2global"]))
            to_key = sensor_to_sensor(own, (to_ego, to_global))
        lag = float(info["timestamp"]) - float(each["timestamp"])
        found.append(Sweep(text(points.get("lidar_path")), to_key, lag))
    return tuple(found)


def _instances(
    rows: Sequence[Any], generation: InfoGeneration, to_camera: NDArray[np.float64] | None
) -> tuple[FoundBox, ...]:
    """The objects of a frame of 1.x."""
    if len(rows) > _MOST_OBJECTS:
        raise ValueError(f"it has {len(rows):,} objects")
    found = []
    for place, row in enumerate(rows):
        label = int(row.get("bbox_label_3d", row.get("bbox_label", -1)))
        name = generation.other if label < 0 else generation.labels.get(label, UNKNOWN)
        lidar, radar = (int(row.get(key, -1)) for key in ("num_lidar_pts", "num_radar_pts"))
        box = lidar_box(row["bbox_3d"], name, generation, to_camera)
        found.append(
            FoundBox(
                name=name,
                box=box,
                where=f"instance {place}",
                id=text(row.get("index", "")),
                num_points=known_points(lidar, radar) if box is not None else -1,
                velocity=two_numbers(row.get("velocity")),
                truncation=float(row.get("truncated", -1)),
                occlusion=int(row.get("occluded", -1)),
                alpha=float(row.get("alpha", np.nan)) if box is not None else float("nan"),
                box_2d=box_2d(row.get("bbox")),
            )
        )
    return tuple(found)
