"""One frame of an info file of MMDetection3D 0.x, with its boxes in our frame."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.point_cloud import Camera
from mtl_ray.sources.lidar.objects import FoundBox, inverse, known_points, pose
from mtl_ray.sources.lidar.openmmlab_frames import NUSCENES_SIZE, InfoFrame
from mtl_ray.sources.lidar.openmmlab_generation import (
    KITTI_CAMERA,
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
    square,
    text,
    two_numbers,
)
from mtl_ray.sources.lidar.sweeps import Sweep

_COLUMNS = ("location", "dimensions", "rotation_y", "bbox", "alpha", "truncated", "occluded")
"""Of the objects."""


def read_kitti(info: Mapping[str, Any], generation: InfoGeneration) -> InfoFrame:
    """Of 0.x, of KITTI, and of Waymo in its form."""
    calib, image = mapping(info, "calib"), mapping(info, "image")
    to_camera = square(calib["R0_rect"]) @ square(calib["Tr_velo_to_cam"])
    front = "P2" if generation.dataset == "kitti" else "P0"
    height, width = (int(side) for side in image.get("image_shape", (0, 0))[:2])
    camera = Camera(
        name=KITTI_CAMERA if generation.dataset == "kitti" else "CAM_FRONT",
        width=width,
        height=height,
        lidar_to_camera=to_camera,
        projection=square(calib[front])[:3],
    )
    annos = info.get("annos")
    plane = info.get("plane")
    return InfoFrame(
        key=frame_name(generation.dataset, image["image_idx"]),
        cloud=generation.cloud(info),
        sweeps=(),
        cameras=((text(image.get("image_path")), camera),),
        objects=_columns(annos, generation, to_camera) if isinstance(annos, dict) else None,
        lidar_to_ego=None,
        ego_to_global=optional_matrix(info.get("pose")),
        ground=None if plane is None else plane_of(plane, to_camera),
        notes=notes_of(info, "timestamp"),
    )


def _columns(
    annos: Mapping[str, Any], generation: InfoGeneration, to_camera: NDArray[np.float64]
) -> tuple[FoundBox, ...]:
    """The objects of a frame of 0.x: arrays of N rows, dimensions as length, height, width."""
    names = [str(name) for name in annos["name"]]
    columns = {
        name: np.asarray(annos[name], np.float64)
        for name in (
            "location",
            "dimensions",
            "rotation_y",
            "bbox",
            "alpha",
            "truncated",
            "occluded",
        )
    }
    points = np.asarray(annos.get("num_points_in_gt", [-1] * len(names)))
    if any(len(values) != len(names) for values in (*columns.values(), points)):
        raise ValueError("its columns of objects have different lengths")
    found = []
    for row, name in enumerate(names):
        values = (
            *columns["location"][row],
            *columns["dimensions"][row],
            columns["rotation_y"][row],
        )
        box = lidar_box(values, name, generation, to_camera)
        found.append(
            FoundBox(
                name=name,
                box=box,
                where=f"object {row}",
                id=str(row),
                num_points=int(points[row]),
                truncation=float(columns["truncated"][row]),
                occlusion=int(columns["occluded"][row]),
                alpha=float(columns["alpha"][row]) if box is not None else float("nan"),
                box_2d=box_2d(columns["bbox"][row]),
            )
        )
    return tuple(found)


def read_nuscenes(info: Mapping[str, Any], generation: InfoGeneration) -> InfoFrame:
    """Of 0.x, of nuScenes and Lyft."""
    if not info.get("token"):
        raise ValueError("has no token")
    to_ego = pose(info["lidar2ego_rotation"], info["lidar2ego_translation"])
    to_global = pose(info["ego2global_rotation"], info["ego2global_translation"])
    cameras = []
    for name, each in mapping(info, "cams").items():
        intrinsic = np.array(each["cam_intrinsic"], np.float64)
        width, height = NUSCENES_SIZE if generation.dataset == "nuscenes" else (0, 0)
        camera = Camera(
            name=str(name),
            width=width,
            height=height,
            lidar_to_camera=inverse(_to_lidar(each)),
            projection=np.column_stack([intrinsic, np.zeros(3)]),
        )
        cameras.append((text(each.get("data_path")), camera))
    sweeps = tuple(
        Sweep(
            text(each.get("data_path")),
            _to_lidar(each),
            (float(info["timestamp"]) - float(each["timestamp"])) * 1e-6,
        )
        for each in mappings(info, "sweeps")
    )
    return InfoFrame(
        key=text(info["token"]),
        cloud=generation.cloud(info),
        sweeps=sweeps,
        cameras=tuple(cameras),
        objects=_arrays(info, generation) if info.get("gt_boxes") is not None else None,
        lidar_to_ego=to_ego,
        ego_to_global=to_global,
        ground=None,
        notes=notes_of(info, "token", "timestamp"),
    )


def _to_lidar(sensor: Mapping[str, Any]) -> NDArray[np.float64]:
    """(4, 4) from a sensor to the lidar of the key frame."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(sensor["sensor2lidar_rotation"], np.float64)
    matrix[:3, 3] = np.array(sensor["sensor2lidar_translation"], np.float64)
    return matrix_of(matrix)


def _arrays(info: Mapping[str, Any], generation: InfoGeneration) -> tuple[FoundBox, ...]:
    boxes = np.array(info["gt_boxes"], np.float64).reshape(-1, 7)
    names = [str(name) for name in info["gt_names"]]
    unknown = [-1] * len(names)
    lidar, radar = (list(info.get(key, unknown)) for key in ("num_lidar_pts", "num_radar_pts"))
    velocity = np.array(info.get("gt_velocity", np.full((len(names), 2), np.nan)), np.float64)
    if not len(boxes) == len(names) == len(velocity) == len(lidar) == len(radar):
        raise ValueError("its arrays of objects have different lengths")
    return tuple(
        FoundBox(
            name=name,
            box=lidar_box(boxes[row], name, generation, None),
            where=f"object {row}",
            num_points=known_points(int(lidar[row]), int(radar[row])),
            velocity=two_numbers(velocity[row]),
        )
        for row, name in enumerate(names)
    )
