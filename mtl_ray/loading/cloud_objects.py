"""Single objects of a cloud are moved, and objects of other clouds are added (Yan et al. 2018,
SECOND, sections 3.2.1 and 3.2.3).

Random numbers come from the caller.
"""

import random
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.boxes_3d import BOXES_3D, LidarObjects
from mtl_ray.geometry.boxes_3d import points_in_boxes, wrap_angle
from mtl_ray.geometry.rotated_iou import bev_intersections
from mtl_ray.inputs.point_cloud import PointCloud
from mtl_ray.inputs.points import select_features
from mtl_ray.loading.cloud_config import MoveObjects, PasteObjects
from mtl_ray.loading.moves import random_integer
from mtl_ray.loading.object_bank import ObjectBank
from mtl_ray.loading.scene import Scene


def move_objects(scene: Scene, transform: MoveObjects, rng: random.Random) -> Scene:
    """Each object is shifted and turned about its centre, its points with it, one after the other:
    the first try that touches no other object is taken.

    A point that two boxes hold moves with the first of them.
    """
    part: LidarObjects | None = scene.parts.get(BOXES_3D)
    if part is None or not len(part.classes):
        return scene
    boxes = part.boxes.copy()
    for index in range(len(boxes)):
        others = np.delete(boxes, index, axis=0)
        for _ in range(transform.tries):
            tried = _nudged(boxes[index], transform, rng)
            if not (bev_intersections(tried[None], others) > 0).any():
                boxes[index] = tried
                break
    points = _carried(scene.cloud.points, part.boxes, boxes)
    turned = boxes[:, 6].astype(np.float64) - part.boxes[:, 6]
    velocity = _turned(part.velocity, turned)
    objects = replace(part, boxes=boxes, velocity=velocity)
    return replace(
        scene,
        raw=scene.cloud.with_points(points),
        parts={**scene.parts, BOXES_3D: objects},
    )


def _nudged(
    box: NDArray[np.float32], transform: MoveObjects, rng: random.Random
) -> NDArray[np.float32]:
    """(7,) a box that is shifted and turned at random."""
    tried = box.astype(np.float64)
    tried[:3] += [rng.gauss(0.0, deviation) for deviation in transform.translation]
    tried[6] += rng.uniform(*transform.rotation)
    tried[6] = wrap_angle(tried[6:7])[0]
    return tried.astype(np.float32)


def _turned(xy: NDArray[np.floating], angles: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N, 2) vectors, each turned by its angle (N,)."""
    cosine, sine = np.cos(angles), np.sin(angles)
    x, y = xy[:, 0], xy[:, 1]
    return np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=1).astype(np.float32)


def _carried(
    points: NDArray[np.float32], before: NDArray[np.float32], after: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(N, F) points, those in the boxes ``before`` (M, 7) moved as the boxes were."""
    inside = points_in_boxes(points, before)  # (M, N)
    owner = inside.argmax(axis=0)  # the first box that holds the point
    which = np.flatnonzero(inside.any(axis=0) & (before != after).any(axis=1)[owner])
    owner = owner[which]
    moved = points.copy()
    old, new = before[owner].astype(np.float64), after[owner].astype(np.float64)
    relative = points[which, :3] - old[:, :3]
    moved[which, :2] = new[:, :2] + _turned(relative[:, :2], new[:, 6] - old[:, 6])
    moved[which, 2] = new[:, 2] + relative[:, 2]
    return moved


def paste_objects(
    scene: Scene, transform: PasteObjects, rng: random.Random, bank: ObjectBank
) -> Scene:
    """Objects of a database are added; a scene whose objects are not annotated stays as it is."""
    part: LidarObjects | None = scene.parts.get(BOXES_3D)
    if part is None:
        return scene
    rows = _free(_drawn(part, transform, rng, bank), part.boxes, bank.boxes)
    if not len(rows):
        return scene
    cloud = scene.cloud
    added = [_lowered(*bank.read(row), transform, cloud) for row in rows.tolist()]
    objects = [each for _, each in added]
    boxes = np.concatenate([each.boxes for each in objects])
    outside = ~points_in_boxes(cloud.points, boxes).any(axis=0)
    points = [select_features(each, cloud.features) for each, _ in added]
    for each in objects:
        part = part.joined(each)
    return replace(
        scene,
        raw=cloud.with_points(np.concatenate([cloud.points[outside], *points])),
        parts={**scene.parts, BOXES_3D: part},
    )


def _drawn(
    part: LidarObjects, transform: PasteObjects, rng: random.Random, bank: ObjectBank
) -> NDArray[np.int64]:
    """Rows of a bank: for each class as many as the scene lacks, none twice."""
    drawn: list[int] = []
    for name, wanted in transform.counts.items():
        missing = wanted - int((part.classes == bank.label(name)).sum())
        rows = bank.rows(name, transform.least(name)).tolist()
        for place in range(min(max(missing, 0), len(rows))):
            chosen = place + random_integer(rng, len(rows) - 1 - place)  # Fisher and Yates
            rows[place], rows[chosen] = rows[chosen], rows[place]
            drawn.append(rows[place])
    return np.array(drawn, np.int64)


def _free(
    rows: NDArray[np.int64], taken: NDArray[np.float32], boxes: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Those of ``rows`` whose boxes overlap, as seen from above, neither one of ``taken`` nor one
    before them that is free.
    """
    wanted = boxes[rows]
    blocked = (bev_intersections(wanted, taken) > 0).any(axis=1)
    overlap = bev_intersections(wanted, wanted) > 0
    kept: list[int] = []
    for place in np.flatnonzero(~blocked).tolist():
        if not overlap[place, kept].any():
            kept.append(place)
    return rows[kept]


def _lowered(
    points: PointCloud, objects: LidarObjects, transform: PasteObjects, scene: PointCloud
) -> tuple[PointCloud, LidarObjects]:
    """The object with its lower face on the ground of a scene, if that is asked for and known."""
    ground = scene.calibration.ground
    if not transform.ground_plane or ground is None:
        return points, objects
    x, y, z, _, _, height, _ = objects.boxes[0].astype(np.float64)
    a, b, c, d = ground
    if abs(c) < 1e-6:  # a wall is no ground
        return points, objects
    rise = -(a * x + b * y + d) / c - (z - height / 2)
    moved, boxes = points.points.copy(), objects.boxes.copy()
    moved[:, 2] += np.float32(rise)
    boxes[:, 2] += np.float32(rise)
    return points.with_points(moved), replace(objects, boxes=boxes)
