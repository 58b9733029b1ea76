"""Point clouds in memory and in a shard, and what is known of the sensors around them.

Frame of the lidar: x front, y left, z up; metres.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_FEATURES = 32
"""The most numbers of one point."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """A camera that sees the scene of a cloud.

    Attributes:
        name: such as ``CAM_FRONT`` or ``image_2``.
        width, height: pixels of its images.
        lidar_to_camera: (4, 4) float64, from the lidar to its frame (x right, y down, z front). Of
            KITTI: to the rectified frame of camera 0.
        projection: (3, 4) float64: pixels (u, v, 1) ~ projection @ (x, y, z, 1) in its frame.
    """

    name: str
    width: int
    height: int
    lidar_to_camera: NDArray[np.float64]
    projection: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class SensorCalibration:
    """What is known of the sensors of one frame.

    Attributes:
        benchmark: whose rules measure it: ``kitti``, ``nuscenes``; empty if none.
        cameras: in the order of ``EncodedPoints.images``.
        lidar_to_ego, ego_to_global: (4, 4) float64 of the vehicle; None if they are not known.
        ground: (4,) a, b, c, d of the plane a x + b y + c z + d = 0 in the lidar's frame; None if
            it is not known.
        notes: further facts as text, such as the token of the sample.
    """

    benchmark: str = ""
    cameras: tuple[Camera, ...] = ()
    lidar_to_ego: NDArray[np.float64] | None = None
    ego_to_global: NDArray[np.float64] | None = None
    ground: NDArray[np.float64] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """As text, without loss."""
        content: dict[str, Any] = {
            "benchmark": self.benchmark,
            "cameras": [
                {
                    "name": camera.name,
                    "width": camera.width,
                    "height": camera.height,
                    "lidar_to_camera": camera.lidar_to_camera.tolist(),
                    "projection": camera.projection.tolist(),
                }
                for camera in self.cameras
            ],
            "notes": dict(self.notes),
        }
        for name in ("lidar_to_ego", "ego_to_global", "ground"):
            if (value := getattr(self, name)) is not None:
                content[name] = value.tolist()
        return json.dumps(content, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "SensorCalibration":
        """The inverse of ``to_json``.

        Raises:
            ValueError: in one sentence, if it has another form.
        """
        try:
            content = json.loads(text or "{}")
            cameras = tuple(
                Camera(
                    name=str(each["name"]),
                    width=int(each["width"]),
                    height=int(each["height"]),
                    lidar_to_camera=_matrix(each["lidar_to_camera"], (4, 4)),
                    projection=_matrix(each["projection"], (3, 4)),
                )
                for each in content.get("cameras", [])
            )
            return SensorCalibration(
                benchmark=str(content.get("benchmark", "")),
                cameras=cameras,
                lidar_to_ego=_optional(content.get("lidar_to_ego"), (4, 4)),
                ego_to_global=_optional(content.get("ego_to_global"), (4, 4)),
                ground=_optional(content.get("ground"), (4,)),
                notes={str(key): str(value) for key, value in content.get("notes", {}).items()},
            )
        except (TypeError, KeyError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(f"the calibration of a cloud is damaged: {error}") from error


def _matrix(values: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    matrix = np.array(values, np.float64)
    if matrix.shape != shape or not np.isfinite(matrix).all():
        raise ValueError(f"a matrix is not of {shape} finite numbers")
    return matrix


def _optional(values: Any, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    return None if values is None else _matrix(values, shape)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedPoints:
    """A cloud as a sample holds it.

    Attributes:
        data: N x F float32, little endian, row by row.
        features: names of the F numbers of a point: ``x``, ``y``, ``z`` first, then such as
            ``intensity`` (0 to 1 of KITTI, to 255 of nuScenes), ``ring``, ``time`` (seconds before
            the frame).
        calibration: of the sensors.
        images: the image file of each camera; b"" where there is none.
    """

    data: bytes
    features: tuple[str, ...] = ("x", "y", "z", "intensity")
    calibration: SensorCalibration = field(default_factory=SensorCalibration)
    images: tuple[bytes, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PointCloud:
    """A decoded cloud.

    Attributes:
        points: (N, F) float32, finite.
        features: as of ``EncodedPoints``.
        calibration: of the sensors.
    """

    points: NDArray[np.float32]
    features: tuple[str, ...] = ("x", "y", "z", "intensity")
    calibration: SensorCalibration = field(default_factory=SensorCalibration)

    def with_points(self, points: NDArray[np.float32]) -> "PointCloud":
        """The same with other points."""
        return replace(self, points=points)


def encoded_points(cloud: PointCloud, images: tuple[bytes, ...] = ()) -> EncodedPoints:
    """The cloud as a sample holds it."""
    return EncodedPoints(
        data=np.ascontiguousarray(cloud.points, "<f4").tobytes(),
        features=cloud.features,
        calibration=cloud.calibration,
        images=images,
    )
