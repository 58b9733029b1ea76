"""Transforms of clouds: boxes keep their points, nothing overlaps, pixels of the camera stay."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.annotations.boxes_3d import BOXES_3D
from mtl_ray.geometry.cameras import project
from mtl_ray.geometry.motion import Motion
from mtl_ray.geometry.rotated_iou import bev_intersections
from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.augment import augmented
from mtl_ray.loading.cloud_config import (
    DropPoints,
    FlipCloud,
    MoveCloud,
    MoveObjects,
    PasteObjects,
    ShufflePoints,
)
from mtl_ray.loading.clouds import moved
from mtl_ray.loading.config import DataConfig, Flip, SplitConfig
from mtl_ray.loading.object_bank import ObjectBank, open_banks
from mtl_ray.loading.scene import Scene
from mtl_ray.shards.split import open_split
from tests.loading.clouds import (
    CANVAS,
    CLASSES,
    cloud_sample,
    counts_of,
    object_samples,
    scene,
    write_clouds,
)

EVERYWHERE = (FlipCloud(p=1), FlipCloud(p=1, axis="x"), MoveCloud(translation=(1.0, 1.0, 0.3)))


def apply(
    start: Scene, *transforms: object, seed: int = 0, banks: dict[str, ObjectBank] | None = None
) -> Scene:
    return augmented(
        start, transforms, random.Random(seed), lambda first, last: [], CANVAS, banks or {}
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    flip_x=st.booleans(),
    flip_y=st.booleans(),
    rotation=st.floats(-4, 4),
    scale=st.floats(0.5, 2),
    shift=st.tuples(*[st.floats(-5, 5)] * 3),
)
def test_boxes_keep_their_points_under_every_motion(
    seed: int,
    flip_x: bool,
    flip_y: bool,
    rotation: float,
    scale: float,
    shift: tuple[float, float, float],
) -> None:
    start = scene(seed)
    motion = Motion(flip_x=flip_x, flip_y=flip_y, rotation=rotation, scale=scale, shift=shift)
    after = moved(start, motion)
    assert counts_of(after) == counts_of(start) == [5, 6, 7, 8, 9, 10]
    assert (np.abs(after.parts[BOXES_3D].boxes[:, 6]) <= np.float32(np.pi)).all()
    speed = np.linalg.norm(start.parts[BOXES_3D].velocity, axis=1) * scale
    assert np.linalg.norm(after.parts[BOXES_3D].velocity, axis=1) == pytest.approx(speed, rel=1e-4)
    assert (after.cloud.points[:, 3] == start.cloud.points[:, 3]).all()
    assert start.cloud.points.tolist() == scene(seed).cloud.points.tolist(), "a copy was changed"


def test_the_camera_sees_a_moved_point_where_it_saw_it() -> None:
    start = scene(3)
    after = apply(start, *EVERYWHERE)
    before, now = (
        project(each.cloud.points[:, :3], each.cloud.calibration.cameras[0])[0]
        for each in (start, after)
    )
    assert (np.isnan(before) == np.isnan(now)).all()
    assert np.nanmax(np.abs(before - now)) < 0.05
    assert np.abs(after.cloud.points[:, :2] - start.cloud.points[:, :2]).max() > 1
    ground = after.cloud.calibration.ground
    flat = np.abs(start.cloud.points[:, 2] + 1.75) < 1e-6
    assert np.abs(after.cloud.points[flat, :3] @ ground[:3] + ground[3] + 0.05).max() < 1e-4


@pytest.mark.parametrize("seed", range(8))
def test_moved_objects_take_their_points_and_do_not_overlap(seed: int) -> None:
    start = scene(seed)
    after = apply(start, MoveObjects(translation=(2.0, 2.0, 0.0)), seed=seed)
    assert counts_of(after) == counts_of(start)
    part, before = after.parts[BOXES_3D], start.parts[BOXES_3D]
    overlaps = bev_intersections(part.boxes, part.boxes)
    assert (overlaps[~np.eye(len(overlaps), dtype=np.bool_)] == 0).all()
    assert (np.abs(part.boxes[:, :2] - before.boxes[:, :2]).max(axis=1) > 0).all()
    assert (part.boxes[:, 2:6] == before.boxes[:, 2:6]).all()
    turned = part.boxes[:, 6] - before.boxes[:, 6]
    heading = np.arctan2(part.velocity[:, 1], part.velocity[:, 0])
    expected = np.arctan2(before.velocity[:, 1], before.velocity[:, 0]) + turned
    assert np.cos(heading - expected) == pytest.approx(1, abs=1e-5)


def test_an_object_that_fits_nowhere_stays() -> None:
    start = scene(0, 2)
    boxes = start.parts[BOXES_3D].boxes.copy()
    boxes[0], boxes[1] = boxes[1], boxes[0]
    boxes[0, :2], boxes[1, :2], boxes[1, 3:5] = (20, 0), (20, 0), (400, 400)
    stuck = replace(start, parts={BOXES_3D: replace(start.parts[BOXES_3D], boxes=boxes)})
    after = apply(stuck, MoveObjects(tries=5))
    assert (after.parts[BOXES_3D].boxes == boxes).all()
    assert (after.cloud.points == start.cloud.points).all()
    apply(scene(0, 0), MoveObjects())


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_clouds(tmp_path_factory.mktemp("objects"), object_samples(range(100, 120)), 3)


def test_pasted_objects_are_whole_and_alone(database: str) -> None:
    counts = {"Car": 4, "Pedestrian": 3}
    paste = PasteObjects(database=database, counts=counts, min_points=6)
    banks = open_banks([paste], {"boxes_3d": CLASSES}, 10**6)
    for seed in range(12):
        start = scene(seed, 4)
        after = apply(start, paste, seed=seed, banks=banks)
        part, before = after.parts[BOXES_3D], start.parts[BOXES_3D]
        assert (part.boxes[:4] == before.boxes).all()
        assert counts_of(after)[:4] == counts_of(start)
        assert min(counts_of(after)[4:], default=6) >= 6
        overlaps = bev_intersections(part.boxes, part.boxes)
        assert (overlaps[4:][~np.eye(len(overlaps), dtype=np.bool_)[4:]] == 0).all()
        for label, name in enumerate(CLASSES):
            present = int((before.classes == label).sum())
            assert (part.classes == label).sum() <= max(present, counts.get(name, 0))
        added = {tuple(box) for box in part.boxes[4:].tolist()}
        assert len(added) == len(part.boxes) - 4, "an object was added twice"
        assert added <= {tuple(box) for box in banks[database].boxes.tolist()}
        bank_points = {
            tuple(box): count
            for box, count in zip(
                banks[database].boxes.tolist(), banks[database].num_points.tolist(), strict=True
            )
        }
        assert counts_of(after)[4:] == [bank_points[tuple(box)] for box in part.boxes[4:].tolist()]
    assert any(
        len(apply(scene(seed, 4), paste, seed=seed, banks=banks).parts[BOXES_3D].boxes) > 6
        for seed in range(4)
    )


def test_points_of_the_scene_inside_a_pasted_box_are_removed(database: str) -> None:
    paste = PasteObjects(database=database, counts={"Car": 50}, min_points=0)
    banks = open_banks([paste], {"boxes_3d": CLASSES}, 10**6)
    start = scene(5, 0)
    numbers = np.random.default_rng(0)
    dense = np.column_stack(
        [numbers.uniform((0, -20, -1.6), (40, 20, 0), (20_000, 3)), np.full(20_000, 7.0)]
    ).astype(np.float32)
    filled = replace(start, raw=start.cloud.with_points(dense))
    after = apply(filled, paste, banks=banks)
    boxes = after.parts[BOXES_3D].boxes
    assert len(boxes) >= 5
    mine = after.cloud.points[:, 3] != 7.0
    owned = after.cloud.points[mine]
    assert counts_of(replace(after, raw=after.cloud.with_points(owned))) == counts_of(after)
    assert not mine[: len(dense) // 2].any(), "pasted points come last"


def test_pasted_objects_stand_on_the_ground_that_is_known(database: str) -> None:
    banks = open_banks(
        [PasteObjects(database=database, counts={"Car": 3})], {"boxes_3d": CLASSES}, 10**6
    )
    low = np.array([0.05, 0.0, 1.0, 2.4])
    start = scene(9, 0)
    calibration = replace(start.cloud.calibration, ground=low)
    start = replace(start, raw=replace(start.cloud, calibration=calibration))
    for wanted in (False, True):
        paste = PasteObjects(database=database, counts={"Car": 3}, ground_plane=wanted)
        after = apply(start, paste, seed=3, banks=banks)
        boxes = after.parts[BOXES_3D].boxes.astype(np.float64)
        assert len(boxes)
        bottom = boxes[:, 2] - boxes[:, 5] / 2
        expected = -(0.05 * boxes[:, 0] + 2.4) if wanted else np.full(len(boxes), -1.7)
        assert bottom == pytest.approx(expected, abs=1e-5)
        assert min(counts_of(after)) >= 5


def test_a_database_of_another_kind_is_refused(tmp_path: Path, database: str) -> None:
    scenes = write_clouds(tmp_path / "scenes", [cloud_sample(seed) for seed in range(3)])
    known = {"boxes_3d": CLASSES}
    with pytest.raises(ValueError, match="one object each"):
        open_banks([PasteObjects(database=scenes, counts={"Car": 1})], known, 10**6)
    with pytest.raises(ValueError, match="'Tram', which the dataset does not have"):
        open_banks([PasteObjects(database=database, counts={"Tram": 1})], known, 10**6)
    large = PasteObjects(database=database, counts={"Car": 1}, min_points=900)
    with pytest.raises(ValueError, match="no Car with at least 900 points"):
        open_banks([large], known, 10**6)
    absent = PasteObjects(database=str(tmp_path / "absent"), counts={"Car": 1})
    with pytest.raises(ValueError, match="no split"):
        open_banks([absent], known, 10**6)
    assert not open_banks([PasteObjects(database="nowhere", counts={"Car": 1}, p=0)], known, 9)


def test_classes_of_a_database_are_matched_by_name(database: str) -> None:
    bank = ObjectBank(open_split(database), ("Truck", "Car"), 10**6)
    assert set(bank.classes.tolist()) == {-1, 1}
    row = int(bank.rows("Car", 0)[0])
    cloud, objects = bank.read(row)
    assert objects.classes.tolist() == [1]
    assert (objects.boxes[0] == bank.boxes[row]).all()
    assert len(cloud.points) == bank.num_points[row]


def test_points_are_shuffled_and_dropped() -> None:
    start = scene(2)
    shuffled = apply(start, ShufflePoints()).cloud.points
    assert (shuffled != start.cloud.points).any()
    assert sorted(map(tuple, shuffled.tolist())) == sorted(map(tuple, start.cloud.points.tolist()))
    dropped = apply(start, DropPoints(share=(0.5, 0.5))).cloud.points
    assert 0.35 < len(dropped) / len(shuffled) < 0.65
    assert len(apply(start, DropPoints(share=(1.0, 1.0))).cloud.points) == 0


def test_transforms_of_another_input_are_refused() -> None:
    split = SplitConfig(uri="somewhere")
    clouds = {"train": split, "val": split, "canvas": CANVAS}
    with pytest.raises(ValueError, match=r"flip changes the input image.* use flip_cloud, move_cl"):
        DataConfig(**clouds, augment=(Flip(),))  # type: ignore[arg-type]
    images = {"train": split, "val": split, "canvas": Canvas(height=8, width=8)}
    with pytest.raises(ValueError, match=r"move_cloud changes the input points.*image.* use flip,"):
        DataConfig(**images, augment=(MoveCloud(),))  # type: ignore[arg-type]
    own = SplitConfig(uri="somewhere", own=({"augment": [Flip()]},))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="flip changes the input image"):
        DataConfig(train=own, val=split, canvas=CANVAS)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: MoveCloud(rotation=(1.0, -1.0)), "the least comes first"),
        (lambda: MoveCloud(scale=(0.0, 1.0)), "must be above 0"),
        (lambda: PasteObjects(database="x", counts={}), "counts is empty"),
        (
            lambda: PasteObjects(database="x", counts={"Car": 1}, min_points={"Van": 1}),
            "min_points names Van",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()  # type: ignore[operator]
