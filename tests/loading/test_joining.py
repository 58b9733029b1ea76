"""Mixup and copy-paste: what is annotated afterwards is what the image shows."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.annotations.instance_masks import Masks
from mtl_ray.annotations.instances import INSTANCES
from mtl_ray.annotations.semantic import SEMANTIC
from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.augment import augmented, num_partners
from mtl_ray.loading.config import CopyPaste, Flip, Mixup, Mosaic
from mtl_ray.loading.joining import copy_paste, mixup
from mtl_ray.loading.scene import Scene
from mtl_ray.samples import IGNORE_INDEX
from tests.loading.scenes import box_of, drawn_masks, masked_scene, with_objects

RULE = Canvas(height=60, width=80, pad=7)
PASTE = CopyPaste(p=1, min_visible=0)
SEEDS = st.integers(0, 10_000)


def paste(start: Scene, other: Scene, seed: int, change: CopyPaste = PASTE) -> Scene:
    return copy_paste(start, other, change, random.Random(seed), RULE)


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_pasted_objects_hide_what_is_behind_them(seed: int) -> None:
    start, other = masked_scene(seed), masked_scene(seed + 1, 50, 70)
    after = paste(start, other, seed)
    objects, masks = after.part("instances"), drawn_masks(after)
    assert masks.any(axis=(1, 2)).all(), "an object that is not visible is gone"
    assert (masks.sum(axis=0) <= 1).all(), "each pixel belongs to the object that it shows"
    for mask, box in zip(masks, objects.boxes_xyxy, strict=True):
        assert np.abs(np.array(box_of(mask)) - box).max() <= 2, "the box is around its mask"
    shown = np.zeros(after.hw, np.uint8)
    for mask, label in zip(masks, objects.classes, strict=True):
        shown[mask > 0] = label
    semantic = after.part("semantic")
    assert (semantic[shown > 0] == shown[shown > 0]).mean() > 0.95, "but for pixels at edges"
    assert after.part("labels") is None
    assert after.hw == start.hw


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_the_rest_of_the_image_stays(seed: int) -> None:
    start, other = masked_scene(seed), masked_scene(seed + 1)
    after, before = paste(start, other, seed), drawn_masks(start)
    own = len(after.part("instances").classes)
    changed = (after.image != start.image).any(axis=2)
    left = {
        int(label): mask
        for label, mask in zip(start.part("instances").classes, before, strict=True)
    }
    pasted = np.zeros(start.hw, np.bool_)
    masks = drawn_masks(after)
    for place in range(own):
        label = int(after.part("instances").classes[place])
        if label in left and (masks[place] <= left[label]).all():
            assert (after.image[masks[place] > 0] == start.image[masks[place] > 0]).all()
            left.pop(label)
        else:
            pasted |= masks[place] > 0
    assert not (changed & ~pasted).any(), "only pasted pixels change"


def test_an_object_that_is_covered_is_gone_and_one_that_is_not_touched_keeps_its_box() -> None:
    start, other = masked_scene(0, objects=1), masked_scene(0, objects=1)
    whole = np.ones(start.hw, np.uint8)
    covered = INSTANCES.paste(start.part("instances"), other.part("instances"), whole, 0.0)
    assert len(covered.classes) == 1, "the pasted one alone is left"
    corner = np.zeros(start.hw, np.uint8)
    x1, y1, *_ = start.part("instances").boxes_xyxy[0].astype(int)
    corner[: max(0, y1 - 1), : max(0, x1 - 1)] = 1
    odd = replace(
        start.part("instances"), boxes_xyxy=start.part("instances").boxes_xyxy + np.float32(0.25)
    )
    kept = INSTANCES.paste(odd, other.part("instances"), corner, 0.0)
    assert (kept.boxes_xyxy[0] == odd.boxes_xyxy[0]).all()
    assert kept.masks.counts[0] == odd.masks.counts[0]


def test_sides_that_stay_visible_keep_what_was_annotated_and_hidden_points_are_hidden() -> None:
    start = masked_scene(3, objects=1)
    objects = start.part("instances")
    loose = replace(objects, boxes_xyxy=objects.boxes_xyxy + np.array([-2, -2, 2, 2], np.float32))
    x1, _, x2, _ = objects.boxes_xyxy[0].astype(int)
    middle = (x1 + x2) // 2 + 1
    left_half = np.zeros(start.hw, np.uint8)
    left_half[:, :middle] = 1
    after = INSTANCES.paste(loose, objects, left_half, 0.0)
    expected = loose.boxes_xyxy[0] + np.array([middle - x1, 0, 0, 0], np.float32)
    assert np.abs(after.boxes_xyxy[0] - expected)[[0, 2]].max() == 0
    assert after.keypoints[0, 0, 2] == 1.0
    assert after.keypoints[1, 0, 2] == 2.0
    least = INSTANCES.paste(loose, objects, left_half, 0.99)
    assert len(least.classes) == 1, "less is left than min_visible"


def test_crowds_are_not_pasted_and_go_only_where_nothing_of_them_is_left() -> None:
    other = masked_scene(5, objects=2)
    crowd = replace(other.part("instances"), crowd=np.ones(2, np.bool_))
    start = masked_scene(6)
    assert paste(start, with_objects(other, crowd), 1) is start
    almost = np.ones(other.hw, np.uint8)
    row, column = np.argwhere(drawn_masks(other)[0])[0]
    almost[row, column] = 0
    left = INSTANCES.paste(crowd, start.part("instances"), almost, 0.9)
    assert left.crowd.sum() == 1


def test_objects_without_a_mask_are_not_pasted_and_count_as_their_boxes() -> None:
    start, other = masked_scene(1), masked_scene(2)
    objects = other.part("instances")
    without = replace(objects, masks=Masks.of((b"",) * len(objects.classes), other.hw))
    assert paste(start, with_objects(other, without), 1) is start
    assert paste(start, with_objects(other, replace(objects, masks=None)), 1) is start
    own = start.part("instances")
    boxes_only = replace(own, masks=Masks.of((b"",) * len(own.classes), start.hw))
    half = np.zeros(start.hw, np.uint8)
    half[:, : start.hw[1] // 2] = 1
    after = INSTANCES.paste(boxes_only, objects, half, 0.0)
    kept = own.boxes_xyxy[:, 2] > start.hw[1] // 2
    assert (after.boxes_xyxy[: kept.sum()] == own.boxes_xyxy[kept]).all()


def test_nothing_is_pasted_where_objects_are_not_annotated() -> None:
    start, other = masked_scene(1), masked_scene(2)
    blind = replace(start, parts={SEMANTIC: start.part("semantic")})
    assert paste(blind, other, 1) is blind
    assert paste(start, replace(other, parts={SEMANTIC: other.part("semantic")}), 1) is start
    no_map = replace(other, parts={INSTANCES: other.part("instances")})
    after = paste(start, no_map, 1)
    pasted = (after.image != start.image).any(axis=2)
    assert pasted.any()
    assert (after.part("semantic")[pasted] == IGNORE_INDEX).all()


@given(SEEDS, st.floats(0.1, 0.9))
@settings(max_examples=40, deadline=None)
def test_mixup_shows_both_and_has_the_objects_of_both(seed: int, share: float) -> None:
    start, other = masked_scene(seed), masked_scene(seed + 1, 50, 40)
    change = Mixup(p=1, share=share, flip=0, scale=(1.0, 1.0), min_visible=0)
    after = mixup(start, other, change, random.Random(seed), RULE)
    count = len(start.part("instances").classes)
    objects = after.part("instances")
    assert (objects.boxes_xyxy[:count] == start.part("instances").boxes_xyxy).all()
    assert set(objects.classes[count:]) <= set(other.part("instances").classes)
    masks = drawn_masks(after)
    for mask, box in zip(masks, objects.boxes_xyxy, strict=True):
        assert np.abs(np.array(box_of(mask)) - box).max() <= 2
    plain = after.image.astype(float) - share * start.image
    behind = masks[count:].any(axis=0)
    if behind.any():
        assert plain[behind].min() > (1 - share) * 7 - 1, "the objects of the other shine through"
    agree = after.part("semantic") != IGNORE_INDEX
    assert (after.part("semantic")[agree] == start.part("semantic")[agree]).all()
    assert after.part("labels").tolist() == sorted({seed % 7, (seed + 1) % 7})


def test_mixup_with_an_image_that_lacks_an_annotation_is_left_out() -> None:
    start = masked_scene(1)
    blind = replace(start, parts={SEMANTIC: start.part("semantic")})
    assert mixup(start, blind, Mixup(p=1), random.Random(0), RULE) is start


@pytest.mark.parametrize("change", [Mixup(p=1), CopyPaste(p=1)])
def test_classes_are_known_that_both_datasets_know(change: Mixup | CopyPaste) -> None:
    start, other = masked_scene(1), masked_scene(2)
    other = replace(other, known_classes={"instances": np.arange(9) < 6})
    after = augmented(start, (change,), random.Random(1), lambda first, last: [other], RULE)
    assert after.known_classes["instances"].tolist() == [True] * 6 + [False] * 3


def test_each_transform_gets_partners_of_its_own_and_a_mosaic_the_first_three() -> None:
    changes = (Mixup(p=1), Flip(), CopyPaste(p=1), Mosaic(p=1), Mixup(p=1))
    assert num_partners(changes) == 6
    assert num_partners((Mosaic(p=0), Flip())) == 0
    asked: list[tuple[int, int]] = []

    def partners(first: int, last: int) -> list[Scene]:
        asked.append((first, last))
        return [masked_scene(each, 30, 40) for each in range(first, last)]

    augmented(masked_scene(1), changes, random.Random(0), partners, RULE)
    assert asked == [(3, 4), (4, 5), (0, 3), (5, 6)]


@pytest.mark.parametrize("change", [Mixup(), CopyPaste()])
def test_chance_comes_from_the_given_numbers_and_the_scenes_stay(
    change: Mixup | CopyPaste,
) -> None:
    start, other = masked_scene(1), masked_scene(2)
    before = start.image.copy(), drawn_masks(start), other.image.copy()

    def after(seed: int) -> Scene:
        return augmented(start, (change,), random.Random(seed), lambda a, b: [other], RULE)

    one, same = after(3), after(3)
    assert (one.image == same.image).all()
    assert (drawn_masks(one) == drawn_masks(same)).all()
    assert any((after(seed).image != one.image).any() for seed in range(8))
    assert (start.image == before[0]).all()
    assert (drawn_masks(start) == before[1]).all()
    assert (other.image == before[2]).all()
