"""Times the metrics of detection in point clouds on made-up results of the size of the validation
sets of KITTI (3,769 frames, three classes) and nuScenes (6,019 samples, ten classes).

    python -m benchmarks.lidar_metrics

Prints core-seconds: those of this process, numpy on one thread. The KITTI figures are all areas
(image, from above, in space, orientation), levels, both overlaps, AP11 and AP40.
"""

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from mtl_ray.tasks.lidar.kitti.columns import KittiColumns, KittiFrame, camera_boxes, columns
from mtl_ray.tasks.lidar.kitti.keys import named_figures
from mtl_ray.tasks.lidar.kitti.table import kitti_table
from mtl_ray.tasks.lidar.nuscenes.columns import RANGES, NuscenesColumns, NuscenesFrame, Racks
from mtl_ray.tasks.lidar.nuscenes.table import nuscenes_table

KITTI_FRAMES, NUSCENES_SAMPLES = 3769, 6019
KITTI_NAMES = ("Car", "Pedestrian", "Cyclist", "Van", "Person_sitting", "Truck", "DontCare")
SHARES = (0.55, 0.09, 0.03, 0.05, 0.01, 0.02, 0.25)
KITTI_HWL = np.array([(1.5, 1.6, 3.9), (1.75, 0.6, 0.8), (1.7, 0.6, 1.8)])
CLASSES = tuple(name for name in RANGES if name != "cyclist")


def kitti_frame(rng: np.random.Generator) -> KittiFrame:
    """About as many objects as KITTI has, and up to 50 detections, some doubled."""
    count = int(rng.integers(3, 22))
    kinds = rng.choice(len(KITTI_NAMES), count, p=SHARES)
    hwl = KITTI_HWL[np.minimum(kinds, 2)] * rng.uniform(0.85, 1.15, (count, 1))
    depth = rng.uniform(5, 60, count)
    place = np.column_stack([rng.uniform(-0.6, 0.6, count) * depth, np.full(count, 1.7), depth])
    turn = rng.uniform(-np.pi, np.pi, count)
    gt = _kitti_columns(rng, kinds, hwl, place, turn, np.zeros(count))
    of = np.repeat(np.arange(count), rng.poisson(1.3, count))
    false = int(rng.integers(5, 25))
    spread = rng.choice([0.03, 0.08, 0.3], (len(of), 1))
    found = _kitti_columns(
        rng,
        np.concatenate([np.minimum(kinds[of], 2), rng.integers(0, 3, false)]),
        np.concatenate(
            [hwl[of] * rng.uniform(0.9, 1.1, (len(of), 3)), np.tile(KITTI_HWL[0], (false, 1))]
        ),
        np.concatenate(
            [
                place[of] + rng.normal(0, spread, (len(of), 3)),
                rng.uniform((-20, 1.5, 5), (20, 1.9, 60), (false, 3)),
            ]
        ),
        np.concatenate([turn[of] + rng.normal(0, 0.2, len(of)), rng.uniform(-3, 3, false)]),
        np.concatenate([rng.beta(4, 2, len(of)), rng.beta(1.2, 4, false)]),
    )
    return KittiFrame(gt=gt, found=found)


def _kitti_columns(
    rng: np.random.Generator,
    kinds: NDArray[np.int64],
    hwl: NDArray[np.float64],
    place: NDArray[np.float64],
    turn: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> KittiColumns:
    count = len(kinds)
    height = 720 * hwl[:, 0] / place[:, 2]
    middle = np.column_stack([620 + 720 * place[:, 0] / place[:, 2], 180 + 500 / place[:, 2]])
    half = np.column_stack([height * hwl[:, 2] / 4, height / 2])
    return columns(
        [KITTI_NAMES[kind] for kind in kinds],
        camera_boxes(place, hwl, turn),
        boxes_2d=np.concatenate([middle - half, middle + half], axis=1),
        alpha=turn - np.arctan2(place[:, 0], place[:, 2]),
        truncation=rng.choice([0, 0, 0, 0.2, 0.4], count),
        occlusion=rng.choice([0, 0, 1, 2, 3], count),
        scores=scores,
    )


def nuscenes_sample(rng: np.random.Generator) -> NuscenesFrame:
    """About as many objects as nuScenes has (30), and 500 detections."""
    count = int(rng.integers(10, 50))
    shares = np.array([42, 8, 2, 2, 1.5, 20, 1, 1, 9, 13.5])
    gt = _nuscenes_columns(
        rng,
        rng.choice(10, count, p=shares / shares.sum()),
        rng.uniform(-50, 50, (count, 3)),
        np.zeros(count),
    )
    of = rng.integers(0, count, 500)
    spread = rng.choice([0.3, 1.0, 20.0], (500, 1))
    found = _nuscenes_columns(
        rng,
        gt.classes[of],
        gt.centres[of] + rng.normal(0, spread, (500, 3)),
        rng.random(500),
    )
    return NuscenesFrame(gt=gt, found=found)


def _nuscenes_columns(
    rng: np.random.Generator,
    labels: NDArray[np.int64],
    centres: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> NuscenesColumns:
    count = len(labels)
    made = NuscenesColumns(
        classes=labels,
        centres=centres,
        sizes=rng.uniform(0.5, 4, (count, 3)),
        yaw=rng.uniform(-np.pi, np.pi, count),
        velocity=rng.normal(0, 3, (count, 2)),
        attributes=rng.choice(["vehicle.moving", "vehicle.parked", ""], count),
        scores=scores,
        state=np.zeros(count, np.int64),
        frames=np.zeros(count, np.int64),
    )
    none = np.zeros((0, 3))
    racks = Racks(centres=none, rotations=np.zeros((0, 3, 3)), sizes=none)
    return made.judged(CLASSES, np.zeros(3), racks)


def time_kitti(frames: int = KITTI_FRAMES) -> float:
    """Core-seconds of all KITTI figures."""
    rng = np.random.default_rng(0)
    made = [kitti_frame(rng) for _ in range(frames)]
    started = time.process_time()
    figures = named_figures(kitti_table(made, KITTI_NAMES[:3]))
    seconds = time.process_time() - started
    objects = sum(len(frame.gt) for frame in made)
    found = sum(len(frame.found) for frame in made)
    print(
        f"KITTI: {frames:,} frames, {objects:,} objects, {found:,} detections, {len(figures)} "
        f"figures (3D moderate {figures['KITTI/Car_3D_AP40_moderate_strict']:.1f}): "
        f"{seconds:.1f} core-seconds"
    )
    return seconds


def time_nuscenes(samples: int = NUSCENES_SAMPLES) -> float:
    """Core-seconds of all nuScenes figures."""
    rng = np.random.default_rng(0)
    made = [nuscenes_sample(rng) for _ in range(samples)]
    started = time.process_time()
    table = nuscenes_table(made, CLASSES)
    seconds = time.process_time() - started
    objects = sum(len(frame.gt) for frame in made)
    found = sum(len(frame.found) for frame in made)
    print(
        f"nuScenes: {samples:,} samples, {objects:,} objects, {found:,} detections (mAP "
        f"{table.mean_ap:.3f}, NDS {table.score:.3f}): {seconds:.1f} core-seconds"
    )
    return seconds


if __name__ == "__main__":
    time_kitti()
    time_nuscenes()
