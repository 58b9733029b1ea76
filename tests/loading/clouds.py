"""Clouds with boxes made from a seed, and splits of them, for the tests of this room."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtl_ray.annotations.boxes_3d import BOXES_3D, Boxes3d, LidarObjects
from mtl_ray.geometry.boxes_3d import count_points, points_in_boxes
from mtl_ray.inputs.point_cloud import Camera, PointCloud, SensorCalibration, encoded_points
from mtl_ray.inputs.points import PointCanvas
from mtl_ray.layout import CLOUDS
from mtl_ray.loading.scene import Scene
from mtl_ray.samples import Sample, Vocabulary
from mtl_ray.shards.write import publish_manifest, write_shard

CLASSES = ("Pedestrian", "Cyclist", "Car")
SIZES = np.array([[0.8, 0.6, 1.73], [1.76, 0.6, 1.73], [3.9, 1.6, 1.56]])
CANVAS = PointCanvas(
    type="points",
    minimum=(0.0, -20.0, -3.0),
    maximum=(40.0, 20.0, 1.0),
    voxel=(0.5, 0.5, 4.0),
    max_points=16,
    max_voxels=900,
    max_train_voxels=700,
)
CAMERA = Camera(
    name="image_2",
    width=1242,
    height=375,
    lidar_to_camera=np.array(
        [[0.0, -1, 0, 0.1], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]]
    ),
    projection=np.array([[721.5, 0, 609.6, 44.9], [0, 721.5, 172.9, 0.2], [0, 0, 1, 0.003]]),
)


def objects(seed: int, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """(N, 7) boxes that do not overlap on the plane z = -1.7, and their classes."""
    numbers = np.random.default_rng(seed)
    classes = numbers.integers(0, 3, count)
    boxes = np.zeros((count, 7), np.float32)
    boxes[:, 0] = 5 + 5.5 * np.arange(count) + numbers.uniform(-0.5, 0.5, count)
    boxes[:, 1] = numbers.uniform(-15, 15, count)
    boxes[:, 3:6] = SIZES[classes] * numbers.uniform(0.9, 1.1, (count, 3))
    boxes[:, 2] = -1.7 + boxes[:, 5] / 2
    boxes[:, 6] = numbers.uniform(-np.pi, np.pi, count)
    return boxes, classes


def cloud(seed: int, boxes: np.ndarray, *, ground: bool = True) -> PointCloud:
    """Points just below the boxes, and some well inside each of them."""
    numbers = np.random.default_rng(seed + 1000)
    flat = np.column_stack(
        [numbers.uniform(0, 40, 400), numbers.uniform(-20, 20, 400), np.full(400, -1.75)]
    )
    inner = [_inside(numbers, box, 5 + index) for index, box in enumerate(boxes)]
    xyz = np.concatenate([flat, *inner]).astype(np.float32)
    points = np.column_stack([xyz, numbers.uniform(0, 1, len(xyz))]).astype(np.float32)
    order = numbers.permutation(len(points))
    plane = np.array([0.0, 0.0, 1.0, 1.7]) if ground else None
    return PointCloud(
        points=points[order],
        calibration=SensorCalibration(benchmark="kitti", cameras=(CAMERA,), ground=plane),
    )


def _inside(numbers: np.random.Generator, box: np.ndarray, count: int) -> np.ndarray:
    local = numbers.uniform(-0.4, 0.4, (count, 3)) * box[3:6]
    cosine, sine = np.cos(box[6]), np.sin(box[6])
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return np.asarray(local @ turn.T + box[:3])


def scene(seed: int, count: int = 6, *, ground: bool = True) -> Scene:
    boxes, classes = objects(seed, count)
    velocity = np.random.default_rng(seed).normal(size=(count, 2)).astype(np.float32)
    part = LidarObjects(boxes=boxes, classes=classes, velocity=velocity)
    return Scene(raw=cloud(seed, boxes, ground=ground), parts={BOXES_3D: part}, known_classes={})


def counts_of(found: Scene) -> list[int]:
    return count_points(found.cloud.points, found.parts[BOXES_3D].boxes).tolist()


def cloud_sample(seed: int, *, annotated: bool = True) -> Sample:
    boxes, classes = objects(seed, 3 + seed % 4)
    found = cloud(seed, boxes)
    names = [CLASSES[index] for index in classes]
    value = Boxes3d.of(
        boxes, names, CLASSES, num_points=count_points(found.points, boxes).astype(np.int64)
    )
    annotations = {"boxes_3d": value} if annotated else {}
    return Sample(
        key=f"{seed:06d}", inputs={"points": encoded_points(found)}, annotations=annotations
    )


def object_samples(seeds: Sequence[int]) -> list[Sample]:
    """Each object of some clouds as a sample of its own, its points where they were."""
    found = []
    for seed in seeds:
        boxes, classes = objects(seed, 3 + seed % 4)
        whole = cloud(seed, boxes)
        inside = points_in_boxes(whole.points, boxes)
        for index, label in enumerate(classes):
            value = Boxes3d.of(
                boxes[index : index + 1],
                [CLASSES[label]],
                CLASSES,
                num_points=inside[index : index + 1].sum(axis=1),
            )
            found.append(
                Sample(
                    key=f"{seed:06d}_{index}",
                    inputs={
                        "points": encoded_points(whole.with_points(whole.points[inside[index]]))
                    },
                    annotations={"boxes_3d": value},
                )
            )
    return found


def write_clouds(folder: Path, samples: Sequence[Sample], shards: int = 2) -> str:
    uri = str(folder)
    entries = [
        write_shard(uri, f"clouds-{index:05d}", samples[index::shards], layout=CLOUDS)
        for index in range(shards)
    ]
    publish_manifest(
        uri,
        entries,
        name="clouds",
        vocabulary=Vocabulary(classes={"boxes_3d": CLASSES}),
        shuffled=False,
        provenance={},
    )
    return uri
