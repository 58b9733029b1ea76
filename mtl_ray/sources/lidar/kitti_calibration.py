"""The calibrations and ground planes of KITTI objects.

A calibration is read by the names of its lines (files of other programs have other lines in another
order). That of several cameras (Waymo, as MMDetection3D writes it) has the lines P0, P1, ... and
Tr_velo_to_cam_0, Tr_velo_to_cam_1, ...
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.point_cloud import Camera
from mtl_ray.sources.class_names import text_of

IMAGE_SIZE = (1242, 375)
"""Width and height in pixels of an image that is not there."""
ONLY = "image_2"
"""The camera of KITTI, by the folder of its images."""
IMAGES = tuple(f"image_{number}" for number in range(5))
"""Those of a vehicle with several cameras."""
_VELO = "Tr_velo_to_cam"
_SAME = {"R_rect": "R0_rect", "Tr_velo_cam": _VELO}
"""The names of lines in KITTI's tracking data."""


def read_cameras(data: bytes) -> tuple[Camera, ...]:
    """The cameras of a calibration: ``ONLY``, or of several those of ``IMAGES``; the boxes of the
    labels are in the frame of the first. The size of their images is not in the file.

    Args:
        data: a file with lines ``P2: 12 numbers``, ``R0_rect: 9 numbers`` and ``Tr_velo_to_cam: 12
            numbers``, in any order.

    Raises:
        ValueError: in one sentence, if a line is missing or damaged.
    """
    found: dict[str, list[str]] = {}
    for line in text_of(data).splitlines():
        name, *numbers = line.replace(":", " ").split() or [""]
        found.setdefault(_SAME.get(name, name), numbers)
    own = [number for number in range(len(IMAGES)) if f"{_VELO}_{number}" in found]
    if not own:
        return (_camera(ONLY, found, "P2", _VELO),)
    return tuple(
        _camera(IMAGES[number], found, f"P{number}", f"{_VELO}_{number}")
        for number in range(own[-1] + 1)
    )


def _camera(folder: str, found: Mapping[str, Sequence[str]], own: str, moved: str) -> Camera:
    shapes = {own: (3, 4), "R0_rect": (3, 3), moved: (3, 4)}
    if missing := [name for name in shapes if name not in found]:
        raise ValueError(f"its lines {', '.join(missing)} are missing")
    projection, rectify, velo = (
        _matrix(name, found[name], shape) for name, shape in shapes.items()
    )
    lidar_to_camera = np.eye(4)
    lidar_to_camera[:3] = rectify @ velo
    if abs(np.linalg.det(lidar_to_camera)) < 1e-6:
        raise ValueError(f"R0_rect or {moved} is no rotation")
    return Camera(
        name=folder,
        width=IMAGE_SIZE[0],
        height=IMAGE_SIZE[1],
        lidar_to_camera=lidar_to_camera,
        projection=projection,
    )


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
