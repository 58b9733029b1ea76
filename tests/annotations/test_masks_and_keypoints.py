"""Masks and keypoints of instances follow every transform, as the image does."""

import random
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mtl_ray.annotations.annotation import ClassMapper
from mtl_ray.annotations.instance_masks import Masks
from mtl_ray.annotations.instance_values import Instances, Objects
from mtl_ray.annotations.instances import INSTANCES, KEYPOINTS, MASKS
from mtl_ray.annotations.semantic import SEMANTIC
from mtl_ray.geometry.masks import decode_rle, encode_rle
from mtl_ray.inputs.frame import frame_of
from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.augment import augmented
from mtl_ray.loading.config import Augmentation, Flip, Mosaic, RandomCrop, Zoom
from mtl_ray.loading.loader import Loader
from mtl_ray.loading.moves import crop, flip, pad
from mtl_ray.loading.scene import Scene
from tests.loading.scenes import scene
from tests.loading.splits import data_config, sample, write_split

BOTH = INSTANCES.fields
SIZES = st.tuples(st.integers(0, 10_000), st.integers(4, 50), st.integers(4, 50))


def disjoint(seed: int, height: int, width: int) -> Scene:
    """Objects that do not overlap: the map says the same as their masks. One keypoint lies at
    the middle pixel of each object.
    """
    drawn = scene(seed, height, width, objects=3)
    semantic: NDArray[np.uint8] = drawn.parts[SEMANTIC]
    present = [value for value in (1, 2, 3) if (semantic == value).any()]
    masks, boxes, points = [], [], []
    for value in present:
        rows, columns = np.nonzero(semantic == value)
        masks.append(encode_rle(semantic == value))
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        middle = len(rows) // 2
        points.append([[columns[middle] + 0.5, rows[middle] + 0.5, 2], [0, 0, 0]])
    count = len(present)
    value = Instances(
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.array(present, np.int64),
        ids=np.arange(count),
        areas=np.ones(count, np.float32),
        crowd=np.zeros(count, np.bool_),
        difficult=np.zeros(count, np.bool_),
        truncated=np.zeros(count, np.bool_),
        masks=tuple(masks),
        keypoints=np.array(points, np.float32).reshape(-1, 2, 3),
    )
    mapper = ClassMapper(np.arange(4), ("0", "1", "2", "3"))
    objects = INSTANCES.load(value, mapper, drawn.image, 10**6, BOTH)
    return Scene(raw=drawn.image, parts={INSTANCES: objects, SEMANTIC: semantic}, known_classes={})


def masks_of(changed: Scene) -> NDArray[np.uint8]:
    """(N, H, W) as they lie in the scene now."""
    objects = changed.part("instances")
    drawn = np.zeros((len(objects.classes), *changed.hw), np.uint8)
    objects.masks.render(drawn)
    return drawn


def check(changed: Scene) -> None:
    """Each mask is its class in the map; each visible keypoint lies in the mask of its object."""
    objects, semantic = changed.part("instances"), changed.part("semantic")
    for mask, value, points in zip(
        masks_of(changed), objects.classes, objects.keypoints, strict=True
    ):
        assert np.array_equal(mask == 1, semantic == value)
        x, y, visibility = points[0]
        if visibility > 0:
            assert mask[int(y), int(x)] == 1
        assert points[1][2] == 0, "a keypoint that is not labelled stays so"


@given(SIZES, st.sampled_from(["horizontal", "vertical"]))
@settings(max_examples=40, deadline=None)
def test_flip(size: tuple[int, int, int], direction: str) -> None:
    start = disjoint(*size)
    once = flip(start, direction)
    check(once)
    assert np.array_equal(masks_of(flip(once, direction)), masks_of(start))


@given(SIZES, st.data())
@settings(max_examples=60, deadline=None)
def test_crop_and_pad(size: tuple[int, int, int], data: st.DataObject) -> None:
    start = disjoint(*size)
    height, width = start.hw
    top, left = data.draw(st.integers(0, height - 2)), data.draw(st.integers(0, width - 2))
    part = crop(
        start,
        top,
        left,
        data.draw(st.integers(1, height - top)),
        data.draw(st.integers(1, width - left)),
        0.0,
    )
    check(part)
    check(pad(part, 3, 5, part.hw[0] + 7, part.hw[1] + 6, 9))


@given(SIZES, st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_many_transforms_after_each_other(size: tuple[int, int, int], seed: int) -> None:
    changes: list[Augmentation] = [
        Flip(p=0.5),
        RandomCrop(min_visible=0),
        Zoom(min_visible=0),
        Flip(p=0.5, direction="vertical"),
    ]
    check(
        augmented(
            disjoint(*size),
            changes,
            random.Random(seed),
            lambda start, stop: [],
            Canvas(height=48, width=64),
        )
    )


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_mosaic_and_canvas(seed: int) -> None:
    """Resampling may take another neighbour at an edge: all but few pixels agree, and none is
    outside its quarter.
    """
    rule = Canvas(height=48, width=64)
    scenes = [disjoint(seed + part, 30 + part, 40 - part) for part in range(4)]
    mosaic = augmented(
        scenes[0],
        (Mosaic(p=1, min_visible=0),),
        random.Random(seed),
        lambda start, stop: scenes[1:],
        rule,
    )
    masks, semantic = masks_of(mosaic), mosaic.part("semantic")
    classes = mosaic.part("instances").classes
    for value in np.unique(classes):
        union = masks[classes == value].any(axis=0)
        assert (union != (semantic == value)).mean() < 0.03
    frame = frame_of(48, 64, Canvas(height=32, width=32))
    placed = INSTANCES.place(mosaic.part("instances"), frame)
    drawn = np.zeros((len(placed.classes), 32, 32), np.uint8)
    placed.masks.render(drawn)
    small = SEMANTIC.place(semantic, frame)
    for value in np.unique(placed.classes):
        assert (drawn[placed.classes == value].any(axis=0) != (small == value)).mean() < 0.06


def test_a_mask_that_stays_behind_is_noticed() -> None:
    """Negative control of ``check``."""
    start = disjoint(3, 30, 40)
    moved = flip(start, "horizontal")
    left = replace(
        moved,
        parts={
            **moved.parts,
            INSTANCES: replace(moved.part("instances"), masks=start.part("instances").masks),
        },
    )
    with pytest.raises(AssertionError):
        check(left)


def test_left_and_right_change_places_in_a_mirror() -> None:
    start = replace(disjoint(1, 20, 20), mirror=(1, 0))
    before, after = (
        start.part("instances").keypoints,
        flip(start, "horizontal").part("instances").keypoints,
    )
    assert np.allclose(after[:, 1, 0], 20 - before[:, 0, 0])
    assert np.array_equal(after[:, 0, 2], before[:, 1, 2])


def test_they_reach_the_batch_only_if_a_head_reads_them(tmp_path: Path) -> None:
    made = [sample(index) for index in range(8)]
    rng = np.random.default_rng(0)
    samples = []
    for each in made:
        assert each.instances is not None
        count = len(each.instances)
        shape = (each.height, each.width)
        masks = tuple(encode_rle(rng.random(shape) > 0.5) for _ in range(count))
        points = np.dstack([rng.random((count, 2, 2)) * 20, np.full((count, 2, 1), 2)]).astype(
            np.float32
        )
        samples.append(
            each.with_annotations(instances=replace(each.instances, masks=masks, keypoints=points))
        )
    data = data_config(write_split(tmp_path, samples))
    plain = next(iter(Loader(data))).targets["instances"]
    assert MASKS not in plain
    assert KEYPOINTS not in plain
    batch = next(iter(Loader(data, fields={"instances": BOTH})))
    target = batch.targets["instances"]
    by_key = {each.key: each for each in samples}
    assert target["masks"].shape[-2:] == batch.inputs["image"].shape[-2:]
    for slot, key in enumerate(batch.keys):
        found = by_key[key].instances
        assert found is not None
        frame = frame_of(by_key[key].height, by_key[key].width, data.canvas)
        shown = int(target["present"][slot].sum())
        assert target["has_mask"][slot].sum() == shown
        if shown == len(found):
            where = frame.points_to_canvas(found.keypoints[..., :2])
            assert np.allclose(target["keypoints"][slot, :shown, :, :2].numpy(), where, atol=1e-3)
            share = decode_rle(found.masks[0], by_key[key].height, by_key[key].width).mean()
            valid = (
                target["masks"][slot, 0, : frame.valid_height, : frame.valid_width].float().mean()
            )
            assert abs(float(valid) - share) < 0.25


def test_masks_reach_the_batch_through_mosaic_and_every_transform(tmp_path: Path) -> None:
    """Each object is its whole box, so the masks of a batch are its boxes, to a pixel; objects of
    a split without masks stay objects without masks.
    """
    samples = []
    for index in range(12):
        each = sample(index)
        assert each.instances is not None
        boxes = each.instances.boxes_xyxy.round().astype(int)
        drawn = np.zeros((len(boxes), each.height, each.width), np.bool_)
        for mask, (x1, y1, x2, y2) in zip(drawn, boxes, strict=True):
            mask[y1:y2, x1:x2] = True
        masks = None if index % 3 == 0 else tuple(map(encode_rle, drawn))
        whole = replace(each.instances, boxes_xyxy=boxes.astype(np.float32), masks=masks)
        samples.append(each.with_annotations(instances=whole))
    changes = (Mosaic(p=0.5), Zoom(p=0.5), RandomCrop(p=0.5), Flip(), Flip(direction="vertical"))
    data = data_config(write_split(tmp_path, samples), lambda data: replace(data, augment=changes))
    batches = Loader(data, fields={"instances": frozenset({MASKS})})
    known = unknown = 0
    for batch in islice(batches, 6):
        target = {name: value.numpy() for name, value in batch.targets["instances"].items()}
        for slot, place in zip(*np.nonzero(target["present"]), strict=True):
            mask, (x1, y1, x2, y2) = target["masks"][slot, place], target["boxes"][slot, place]
            if not target["has_mask"][slot, place]:
                unknown += 1
                assert not mask.any()
                continue
            known += 1
            rows, columns = np.nonzero(mask)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(np.array([x1, y1, x2, y2]) - found).max() <= 1
            assert len(rows) == (found[2] - found[0]) * (found[3] - found[1])
        assert not target["has_mask"][~target["present"]].any()
    assert known > 10
    assert unknown > 5


def test_an_object_of_which_only_the_box_is_left_is_gone() -> None:
    """A crop in the hole of a ring shows none of it. What is only too small to be drawn stays, as
    do objects without a mask and with an empty one.
    """
    ring = np.ones((40, 40), np.uint8)
    ring[10:30, 10:30] = 0
    dot = np.zeros((40, 40), np.uint8)
    dot[20, 20] = 1
    start = disjoint(0, 40, 40).part("instances")
    boxes = np.array([[0, 0, 40, 40], [20, 20, 23, 23], [0, 0, 40, 40], [0, 0, 40, 40]], np.float32)
    counts = (encode_rle(ring), encode_rle(dot), b"", encode_rle(np.zeros((40, 40), np.uint8)))
    objects = replace(
        start,
        boxes_xyxy=boxes,
        classes=np.arange(4),
        crowd=np.zeros(4, np.bool_),
        masks=Masks.of(counts, (40, 40)),
        keypoints=None,
    )
    rule = Canvas(height=8, width=8)

    def target(part: Objects) -> tuple[list[bool], list[bool]]:
        placed = INSTANCES.place(part, frame_of(20, 20, rule))
        found = INSTANCES.collate([placed], ("0", "1", "2", "3"), rule, frozenset({MASKS}))
        return found["present"][0].tolist(), found["has_mask"][0].tolist()

    for part in (
        INSTANCES.crop(objects, 10, 10, 20, 20, 0.0),
        INSTANCES.flip(INSTANCES.crop(objects, 10, 10, 20, 20, 0.0), 0, 20, ()),
    ):
        assert target(part) == ([False, True, True, True], [False] * 4)
    touching = INSTANCES.crop(objects, 9, 10, 20, 20, 0.0)
    assert target(touching)[0] == [True] * 4
