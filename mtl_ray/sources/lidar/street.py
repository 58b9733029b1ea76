"""The built-in dataset of point clouds: streets as a spinning lidar on a car sees them.

Scenes have boxes that are exact, occlusion from the rays that other things stop, and a camera with
the numbers of KITTI's, so that KITTI's metric applies. A scene depends only on (seed, split,
number).
"""

import zlib
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.geometry.boxes_3d import count_points
from mtl_ray.geometry.cameras import alpha_of, boxes_2d
from mtl_ray.inputs.point_cloud import Camera, PointCloud, SensorCalibration, encoded_points
from mtl_ray.layout import CLOUDS
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.sources.lidar.config import Street
from mtl_ray.sources.lidar.kitti import CLASSES, seen_by_camera
from mtl_ray.sources.lidar.kitti_calibration import IMAGE_SIZE
from mtl_ray.sources.lidar.street_layout import StreetScene, lay_out
from mtl_ray.sources.lidar.street_rays import Hits, Rays, cast, spinning_rays
from mtl_ray.sources.lidar.street_things import NOISE_M
from mtl_ray.sources.source import Reading, Source, fingerprint_of

_VERSION = "1"
"""Part of the fingerprint: changes when scenes change."""
_MOST_M = 75.0
"""No echo comes from farther."""
_LOST = 0.06
"""Share of the echoes that are lost."""
_ROUGH_M = 0.02
"""The ground is higher or lower by at most so much."""
_BLOCKED = (0.15, 0.5, 0.85)
"""An object is visible, partly, largely or hardly visible (KITTI's 0 to 3) up to these shares of
its rays that are stopped before it.
"""
_AROUND_PX = 5000
"""Pixels around the image in which the whole of a box is measured."""
CAMERA = Camera(
    name="image_2",
    width=IMAGE_SIZE[0],
    height=IMAGE_SIZE[1],
    lidar_to_camera=np.array(
        [[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]]
    ),
    projection=np.array(
        [
            [721.5377, 0, 609.5593, 44.85728],
            [0, 721.5377, 172.854, 0.2163791],
            [0, 0, 1, 0.002745884],
        ]
    ),
)  # fmt: skip
"""Camera 2 of KITTI's car, without its small rotations."""


def open_street(config: Street) -> Source:
    """Opens a split; scenes are generated when they are read."""
    choices = (config.split, config.num, config.seed, config.sector, config.beams)
    return Source(
        vocabulary=Vocabulary(classes={"boxes_3d": CLASSES}),
        records=range(config.num),
        reader=partial(_read, config),
        fingerprint=fingerprint_of([_VERSION, *map(str, choices), str(config.resolution)]),
        layout=CLOUDS,
    )


def _read(config: Street, number: int) -> Reading:
    rng = np.random.default_rng([config.seed, zlib.crc32(config.split.encode()), number])
    scene = lay_out(rng, behind=config.sector == "full")
    rays = spinning_rays(config.beams, config.resolution, config.sector)
    hits = cast(rays, scene.ground, [thing.shapes for thing in scene.things])
    points, owners = _measured(scene, rays, hits, rng)
    if config.sector == "front":
        kept = seen_by_camera(points, CAMERA)
        points, owners = points[kept], owners[kept]
    key = f"{config.split}-{number:06d}"
    calibration = SensorCalibration(
        benchmark="kitti",
        cameras=(CAMERA,),
        ground=np.array(scene.ground),
        notes={"frame": key},
    )
    cloud = PointCloud(points=points, calibration=calibration)
    return Sample(
        key=key,
        inputs={"points": encoded_points(cloud, (b"",))},
        annotations={"boxes_3d": _objects(scene, hits, points, owners)},
    ), []


def _measured(
    scene: StreetScene, rays: Rays, hits: Hits, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(N, 4) float32 points with intensity, and (N,) the thing that each belongs to, -1 for the
    ground.
    """
    echoes = (hits.distances < _MOST_M) & (rng.random(rays.shape) >= _LOST)
    owners = hits.owners[echoes]
    count = len(owners)
    noise = rng.random((3, count)) + rng.random((3, count)) - 1  # in (-1, 1), mostly near 0
    xyz = rays.directions[:, echoes] * (hits.distances[echoes] + NOISE_M * noise[0])
    xyz[2] += np.where(owners < 0, _ROUGH_M * noise[1], 0)
    road = float(rng.uniform(0.15, 0.35))
    reflectance = np.array([*(thing.reflectance for thing in scene.things), road])[owners]
    intensity = np.clip(reflectance + 0.1 * noise[2], 0, 0.99).round(2)
    points = np.column_stack([*xyz.round(3), intensity]).astype(np.float32)
    return points, owners


def _objects(
    scene: StreetScene, hits: Hits, points: NDArray[np.float32], owners: NDArray[np.int64]
) -> Boxes3d:
    """The objects of which there is any point."""
    counts = np.bincount(owners[owners >= 0], minlength=len(scene.things))
    shown = [
        index for index, thing in enumerate(scene.things) if thing.name and counts[index]
    ]  # fmt: skip
    boxes = np.array([scene.things[index].box for index in shown], np.float64).reshape(-1, 7)
    blocked = 1 - hits.seen[shown] / np.maximum(hits.alone[shown], 1)
    rectangles, truncation = _in_camera(boxes)
    stored = boxes.astype(np.float32)
    return Boxes3d.of(
        stored,
        [scene.things[index].name for index in shown],
        CLASSES,
        ids=tuple(map(str, shown)),
        num_points=count_points(points, stored),
        alpha=alpha_of(boxes).astype(np.float32),
        truncation=truncation.round(2).astype(np.float32),
        occlusion=np.digitize(blocked, _BLOCKED, right=True).astype(np.int64),
        boxes_2d=rectangles.round(2).astype(np.float32),
    )


def _in_camera(boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, 4) boxes in the image, NaN if there is none, and (N,) the share that is outside it."""
    shift = np.array([[1.0, 0, _AROUND_PX], [0, 1, _AROUND_PX], [0, 0, 1]])
    wide = replace(
        CAMERA,
        width=CAMERA.width + 2 * _AROUND_PX,
        height=CAMERA.height + 2 * _AROUND_PX,
        projection=shift @ CAMERA.projection,
    )
    inside, whole = boxes_2d(boxes, CAMERA), boxes_2d(boxes, wide)
    share = 1 - _area(inside) / np.maximum(_area(whole), 1e-9)
    return inside, np.where(np.isfinite(share), np.clip(share, 0, 1), 1.0)


def _area(rectangles: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.prod(rectangles[:, 2:] - rectangles[:, :2], axis=1), np.float64)
