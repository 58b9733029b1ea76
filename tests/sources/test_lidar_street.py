"""Generated streets: rays that hit what they should, boxes that hold their points."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_ray.annotations.boxes_3d import Boxes3d
from mtl_ray.inputs.point_cloud import EncodedPoints
from mtl_ray.inputs.points import POINTS
from mtl_ray.sources.image_reading import open_source
from mtl_ray.sources.lidar.config import Street
from mtl_ray.sources.lidar.street_rays import (
    Ball,
    Pole,
    SolidShape,
    UprightBox,
    cast,
    spinning_rays,
)
from mtl_ray.sources.lidar.street_things import NOISE_M, Spot, Thing, car, cyclist, pedestrian

GROUND = (0.0, 0.0, 1.0, 1.73)


def scene(config: Street, number: int) -> tuple[np.ndarray, Boxes3d, EncodedPoints]:
    """Points, objects and the encoded cloud."""
    sample, skipped = open_source(config).read(number)
    assert sample is not None
    assert skipped == []
    encoded: EncodedPoints = sample.inputs["points"]
    return POINTS.decode(encoded, 10**7).points, sample.annotations["boxes_3d"], encoded


def test_a_scene_is_like_a_frame_of_kitti() -> None:
    for number in range(4):
        points, objects, encoded = scene(Street(split="train"), number)
        assert 10_000 < len(points) < 20_000
        assert points[:, 0].min() > 2
        assert points[:, 2].min() > -4
        assert ((points[:, 3] >= 0) & (points[:, 3] < 1)).all()
        assert set(objects.names) <= {"Pedestrian", "Cyclist", "Car"}
        assert len(objects) == len(objects.classes) > 0
        assert encoded.calibration.benchmark == "kitti"
        assert np.isfinite(objects.boxes).all()
        assert np.isfinite(objects.boxes_2d).all()
        assert set(objects.occlusion.tolist()) <= {0, 1, 2, 3}
        assert ((objects.truncation >= 0) & (objects.truncation <= 1)).all()
        visible = (objects.occlusion == 0) & (objects.truncation == 0)
        heights = objects.boxes_2d[:, 3] - objects.boxes_2d[:, 1]
        assert (objects.num_points[visible & (heights > 25)] > 5).all()
        ground = encoded.calibration.ground
        assert ground is not None
        # boxes stand on the ground
        bottom = objects.boxes[:, :3].astype(np.float64)
        bottom[:, 2] -= objects.boxes[:, 5] / 2
        assert bottom @ ground[:3] + ground[3] == pytest.approx(0, abs=1e-3)
        heights_above = points[:, :3] @ ground[:3] + ground[3]
        assert (np.abs(heights_above) < 0.03).mean() > 0.3
        assert heights_above.min() > -0.03


def test_scenes_depend_on_seed_split_and_number_alone() -> None:
    one = scene(Street(split="train", num=3), 2)[2].data
    assert scene(Street(split="train", num=9), 2)[2].data == one
    others = (
        scene(Street(split="val"), 2)[2].data,
        scene(Street(split="train", seed=1), 2)[2].data,
        scene(Street(split="train"), 1)[2].data,
    )
    assert all(one != other for other in others)
    prints = {
        open_source(config).fingerprint
        for config in (Street(split="a"), Street(split="b"), Street(split="a", beams=32))
    }
    assert len(prints) == 3


def test_all_around() -> None:
    config = Street(split="train", sector="full", beams=32, resolution=0.4)
    points, objects, _ = scene(config, 0)
    quarters = np.floor(np.arctan2(points[:, 1], points[:, 0]) / (np.pi / 2)).astype(int)
    assert (np.bincount(quarters + 2, minlength=4) > 500).all()
    behind = objects.boxes[:, 0] < -5
    assert behind.any()
    assert np.isnan(objects.boxes_2d[behind]).all()


def place(shape: SolidShape, directions: np.ndarray) -> np.ndarray:
    """(N, 3) the points that are hit, relative to the centre of the shape."""
    found = shape.distances(directions[:, :, None])[:, 0]
    hit = np.isfinite(found)
    bottom = shape.bottom if isinstance(shape, Pole) else shape.z
    points = (directions[:, hit] * found[hit]).T
    return np.asarray(points - np.array([shape.x, shape.y, bottom]))


@given(
    st.floats(-20, 20),
    st.floats(4, 20),
    st.floats(0.3, 3),
    st.floats(0.3, 3),
    st.floats(-3.2, 3.2),
    st.integers(0, 1000),
)
def test_hits_lie_on_the_shape(
    x: float, y: float, one: float, other: float, yaw: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    aimed = np.array([x, y, 0]) + rng.uniform(-2, 2, (200, 3))
    directions = (aimed / np.linalg.norm(aimed, axis=1, keepdims=True)).T
    c, s = math.cos(yaw), math.sin(yaw)
    block = place(UprightBox(x, y, 0.2, one, other, 0.7, c, s), directions)
    turned = block @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    share = np.abs(turned) / np.array([one, other, 0.7])
    assert share.max(axis=1) == pytest.approx(1, abs=1e-9)
    pole = place(Pole(x, y, -1.0, 1.5, one), directions)
    assert np.hypot(*pole[:, :2].T) == pytest.approx(one, abs=1e-9)
    assert ((pole[:, 2] > 0) & (pole[:, 2] < 2.5)).all()
    ball = place(Ball(x, y, 0.1, one, other), directions)
    assert np.linalg.norm(ball / np.array([one, one, other]), axis=1) == pytest.approx(1)


@pytest.mark.parametrize("sector", ["front", "full"])
@given(st.floats(-3.1, 3.1), st.floats(3, 40), st.floats(0.1, 2.5))
def test_no_ray_is_forgotten(sector: str, azimuth: float, distance: float, size: float) -> None:
    rays = spinning_rays(16, 1.0, sector)
    shape = Pole(distance * math.cos(azimuth), distance * math.sin(azimuth), -9, 9, size)
    hit = np.isfinite(shape.distances(rays.directions)).any(axis=0)
    assert set(np.flatnonzero(hit)) <= set(rays.columns(shape.x, shape.y, shape.radius).tolist())


def test_the_nearer_thing_is_seen() -> None:
    near = UprightBox(10, 0, -1, 1, 1, 0.7, 1, 0)
    far = UprightBox(20, 0, -1, 1, 1, 0.7, 1, 0)
    beside = UprightBox(20, 8, -1, 1, 1, 0.7, 1, 0)
    rays = spinning_rays(64, 0.2, "front")
    hits = cast(rays, GROUND, [[far], [near], [beside]])
    assert hits.seen[0] < 0.2 * hits.alone[0]
    assert hits.seen[1] == hits.alone[1] > 300
    assert hits.seen[2] == hits.alone[2] > 50
    assert hits.distances[hits.owners == 1].max() < 12
    below = (hits.owners < 0) & np.isfinite(hits.distances)
    heights = rays.directions[2][below] * hits.distances[below]
    assert heights == pytest.approx(-1.73)
    empty = cast(rays, GROUND, [])
    assert len(empty.seen) == 0


@pytest.mark.parametrize("maker", [car, cyclist, pedestrian])
@pytest.mark.parametrize("yaw", [0.0, 0.7, 2.0, -3.0])
@pytest.mark.parametrize("seed", range(5))
def test_an_object_fills_its_box(
    maker: Callable[[Spot, np.random.Generator], Thing], yaw: float, seed: int
) -> None:
    thing = maker(Spot(3.0, 12.0, -1.7, yaw), np.random.default_rng(seed))
    found = np.concatenate([outline(shape) for shape in thing.shapes]) - np.array(thing.box[:3])
    c, s = math.cos(yaw), math.sin(yaw)
    local = found @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    half = np.array(thing.box[3:6]) / 2
    free = np.stack([local.min(axis=0) + half, half - local.max(axis=0)])
    assert (free > -1e-6).all()  # nothing is outside
    # the noise of a measurement stays inside, and no more room is left than that
    assert free[:, :2].min() > NOISE_M - 1e-3
    assert free[1, 2] > NOISE_M - 1e-3
    assert free[0, 2] == pytest.approx(0, abs=1e-6)
    assert (free < 2.5 * NOISE_M).all()


def outline(shape: SolidShape) -> np.ndarray:
    """(N, 3) points on a shape that are the farthest in all directions of the plane and in z."""
    turns = np.linspace(0, 2 * np.pi, 721)
    circle = np.column_stack([np.cos(turns), np.sin(turns)])
    if isinstance(shape, UprightBox):
        signs = np.array([(i, j, k) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
        corners = signs * np.array([shape.half_length, shape.half_width, shape.half_height])
        c, s = shape.cosine, shape.sine
        turned = corners @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        return np.asarray(turned + np.array([shape.x, shape.y, shape.z]))
    flat = circle * shape.radius + np.array([shape.x, shape.y])
    if isinstance(shape, Pole):
        heights = (shape.bottom, shape.top)
    else:
        heights = (shape.z - shape.half_height, shape.z + shape.half_height)
        flat = np.concatenate([flat, np.array([[shape.x, shape.y]])])
    return np.concatenate([np.column_stack([flat, np.full(len(flat), z)]) for z in heights])
