"""Point clouds that are mirrored, turned, scaled, shifted, thinned and shuffled; every annotation
moves with them.

Random numbers come from the caller.
"""

import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.motion import Motion
from mtl_ray.inputs.point_cloud import PointCloud, SensorCalibration
from mtl_ray.loading.cloud_config import (
    CloudTransform,
    DropPoints,
    FlipCloud,
    MoveCloud,
    MoveObjects,
    PasteObjects,
    ShufflePoints,
)
from mtl_ray.loading.cloud_objects import move_objects, paste_objects
from mtl_ray.loading.object_bank import ObjectBank
from mtl_ray.loading.scene import Scene


def changed_cloud(
    scene: Scene, transform: CloudTransform, rng: random.Random, banks: Mapping[str, ObjectBank]
) -> Scene:
    """The scene after a transform.

    Args:
        scene: of a cloud.
        transform: its config; whether it applies is decided already.
        rng: where chance comes from.
        banks: by URI, the objects that may be added.
    """
    match transform:
        case FlipCloud():
            axis = transform.axis
            return moved(scene, Motion(flip_x=axis == "x", flip_y=axis == "y"))
        case MoveCloud():
            return moved(scene, random_motion(transform, rng))
        case MoveObjects():
            return move_objects(scene, transform, rng)
        case PasteObjects():
            return paste_objects(scene, transform, rng, banks[transform.database])
        case DropPoints():
            return drop_points(scene, transform, rng)
        case ShufflePoints():
            order = numpy_generator(rng).permutation(len(scene.cloud.points))
            return with_points(scene, scene.cloud.points[order])


def numpy_generator(rng: random.Random) -> np.random.Generator:
    """A NumPy generator, for numbers of each point."""
    return np.random.default_rng(rng.getrandbits(64))


def random_motion(transform: MoveCloud, rng: random.Random) -> Motion:
    """A motion within the ranges of a transform."""
    return Motion(
        rotation=rng.uniform(*transform.rotation),
        scale=rng.uniform(*transform.scale),
        shift=_shift(transform.translation, rng),
    )


def _shift(deviation: tuple[float, float, float], rng: random.Random) -> tuple[float, float, float]:
    x, y, z = (rng.gauss(0.0, each) for each in deviation)
    return x, y, z


def moved(scene: Scene, motion: Motion) -> Scene:
    """The cloud, its annotations, and what is known of the sensors after a motion."""
    cloud = scene.cloud
    points = cloud.points.copy()
    points[:, :3] = motion.points(points[:, :3])
    raw = replace(cloud, points=points, calibration=moved_calibration(cloud.calibration, motion))
    return scene.changed(raw, lambda kind, part: kind.move(part, motion))


def moved_calibration(calibration: SensorCalibration, motion: Motion) -> SensorCalibration:
    """Cameras, poses and the ground, as they are for points that were moved: a moved point has the
    pixels in each image that it had before.
    """
    forward = np.eye(4)
    forward[:3, :3], forward[:3, 3] = motion.matrix, motion.shift
    back = np.linalg.inv(forward)

    def after(matrix: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        return None if matrix is None else matrix @ back

    return replace(
        calibration,
        cameras=tuple(
            replace(camera, lidar_to_camera=camera.lidar_to_camera @ back)
            for camera in calibration.cameras
        ),
        lidar_to_ego=after(calibration.lidar_to_ego),
        ground=after(calibration.ground),
    )


def with_points(scene: Scene, points: NDArray[np.float32]) -> Scene:
    """The scene with other points in the same places."""
    cloud: PointCloud = scene.cloud.with_points(points)
    return replace(scene, raw=cloud)


def drop_points(scene: Scene, transform: DropPoints, rng: random.Random) -> Scene:
    """Without a random share of the points; those that stay keep their order."""
    points = scene.cloud.points
    share = rng.uniform(*transform.share)
    kept = numpy_generator(rng).random(len(points)) >= share
    return with_points(scene, points[kept])
