"""Samples as they come in nuScenes: objects, and detections of a middling detector."""

import numpy as np

from mtl_ray.tasks.lidar.nuscenes.columns import NuscenesColumns, NuscenesFrame, Racks

CLASSES = (
    "car",
    "truck",
    "bus",
    "trailer",
    "construction_vehicle",
    "pedestrian",
    "motorcycle",
    "bicycle",
    "traffic_cone",
    "barrier",
)
ATTRIBUTES = ("", "vehicle.moving", "vehicle.parked")


def random_sample(
    rng: np.random.Generator, most: int = 40, copies: float = 2.0, reach: float = 60.0
) -> NuscenesFrame:
    """One sample with up to ``most`` objects and about ``copies`` detections of each."""
    count = int(rng.integers(0, most))
    gt = _columns(
        rng.integers(0, len(CLASSES) - 1, count),  # no barrier has an object
        rng.uniform(-reach, reach, (count, 3)),
        rng.uniform(0.5, 4, (count, 3)),
        rng.uniform(-np.pi, np.pi, count),
        np.where(rng.random((count, 1)) < 0.1, np.nan, rng.normal(0, 3, (count, 2))),
        rng.choice(ATTRIBUTES, count),
        np.zeros(count),
        rng.integers(0, 9, count),
    )
    of = np.repeat(np.arange(count), rng.poisson(copies, count))
    size = len(of)
    spread = rng.choice([0.2, 0.7, 2.5], size)[:, None]
    found = _columns(
        np.where(rng.random(size) < 0.9, gt.classes[of], rng.integers(0, 10, size)),
        gt.centres[of] + rng.normal(0, spread, (size, 3)),
        gt.sizes[of] * rng.uniform(0.7, 1.4, (size, 3)),
        gt.yaw[of] + rng.normal(0, spread[:, 0]),
        np.nan_to_num(gt.velocity[of]) + rng.normal(0, 1, (size, 2)),
        rng.choice(ATTRIBUTES, size),
        rng.random(size).round(2),  # equal ones occur
        np.full(size, -1),
    )
    return NuscenesFrame(gt=gt, found=found)


def _columns(
    classes: np.ndarray,
    centres: np.ndarray,
    sizes: np.ndarray,
    yaw: np.ndarray,
    velocity: np.ndarray,
    attributes: np.ndarray,
    scores: np.ndarray,
    num_points: np.ndarray,
) -> NuscenesColumns:
    found = NuscenesColumns(
        classes=classes,
        centres=centres,
        sizes=sizes,
        yaw=yaw,
        velocity=velocity,
        attributes=attributes.astype(np.str_),
        scores=scores,
        state=np.zeros(len(classes), np.int64),
        frames=np.zeros(len(classes), np.int64),
    )
    none = np.zeros((0, 3))
    racks = Racks(centres=none, rotations=np.zeros((0, 3, 3)), sizes=none)
    return found.judged(CLASSES, np.zeros(3), racks, num_points)
