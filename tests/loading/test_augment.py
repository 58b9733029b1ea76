"""Image, boxes and maps move together, and as torchvision's transforms move them."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as reference

from mtl_ray.annotations.instance_values import Objects
from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.augment import augmented, color_jitter, color_matrix
from mtl_ray.loading.config import Augmentation, Colour, Flip, Mosaic, RandomCrop, Zoom
from mtl_ray.loading.moves import crop, flip, pad
from mtl_ray.loading.scene import Scene
from mtl_ray.samples import IGNORE_INDEX
from tests.loading.scenes import scene, with_objects

RULE = Canvas(height=48, width=64, pad=7)
SIZES = st.tuples(st.integers(0, 10_000), st.integers(2, 60), st.integers(2, 60))


def apply(start: Scene, change: Augmentation, seed: int = 0) -> Scene:
    partners = [scene(seed + part, 30 + part, 44 - part) for part in range(1, 4)]
    return augmented(
        start, (change,), random.Random(seed), lambda start, stop: partners[start:stop], RULE
    )


def equal(one: Scene, other: Scene) -> bool:
    assert one.part("instances") is not None
    assert other.part("instances") is not None
    return (
        np.array_equal(one.image, other.image)
        and np.array_equal(one.part("semantic"), other.part("semantic"))
        and np.array_equal(one.part("instances").boxes_xyxy, other.part("instances").boxes_xyxy)
        and np.array_equal(one.part("instances").classes, other.part("instances").classes)
    )


def boxes_of(semantic: np.ndarray, classes: np.ndarray) -> dict[int, tuple[int, int, int, int]]:
    """The box around what is visible of each class in a map."""
    found = {}
    for value in classes:
        rows, columns = np.nonzero(semantic == value)
        if len(rows):
            found[int(value)] = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return found


def as_tensors(start: Scene) -> tuple[torch.Tensor, tv_tensors.BoundingBoxes, tv_tensors.Mask]:
    assert start.part("instances") is not None
    boxes = tv_tensors.BoundingBoxes(
        torch.from_numpy(start.part("instances").boxes_xyxy), format="XYXY", canvas_size=start.hw
    )
    return (
        torch.from_numpy(start.image).permute(2, 0, 1),
        boxes,
        tv_tensors.Mask(torch.from_numpy(start.part("semantic"))),
    )


@given(SIZES, st.sampled_from(["horizontal", "vertical"]))
@settings(max_examples=40, deadline=None)
def test_flip_twice_is_the_identity_and_once_is_torchvisions(
    size: tuple[int, int, int], direction: str
) -> None:
    start = scene(*size, objects=2)
    once = flip(start, direction)
    assert equal(flip(once, direction), start)
    theirs = reference.horizontal_flip if direction == "horizontal" else reference.vertical_flip
    image, boxes, mask = (theirs(each) for each in as_tensors(start))
    assert (torch.from_numpy(once.image).permute(2, 0, 1) == image).all()
    assert (torch.from_numpy(once.part("semantic")) == mask).all()
    assert torch.equal(
        torch.from_numpy(once.part("instances").boxes_xyxy), boxes.as_subclass(torch.Tensor)
    )


@given(SIZES, st.data())
@settings(max_examples=40, deadline=None)
def test_cut_is_torchvisions_crop(size: tuple[int, int, int], data: st.DataObject) -> None:
    start = scene(*size, objects=2)
    height, width = start.hw
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    cut_h, cut_w = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    part = crop(start, top, left, cut_h, cut_w, 0.0)
    image, boxes, mask = (
        reference.crop(each, top, left, cut_h, cut_w) for each in as_tensors(start)
    )
    assert (torch.from_numpy(part.image).permute(2, 0, 1) == image).all()
    assert (torch.from_numpy(part.part("semantic")) == mask).all()
    plain = boxes.as_subclass(torch.Tensor)
    kept = ((plain[:, 2:] - plain[:, :2]) >= 1).all(dim=1)
    assert torch.equal(torch.from_numpy(part.part("instances").boxes_xyxy), plain[kept])


@given(SIZES, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_padding_is_torchvisions(
    size: tuple[int, int, int], top: int, left: int, bottom: int, right: int
) -> None:
    start = scene(*size, objects=2)
    height, width = start.hw
    framed = pad(start, top, left, height + top + bottom, width + left + right, 9)
    image, boxes, _ = as_tensors(start)
    image = reference.pad(image, [left, top, right, bottom], fill=9)
    boxes = reference.pad(boxes, [left, top, right, bottom])
    assert (torch.from_numpy(framed.image).permute(2, 0, 1) == image).all()
    assert torch.equal(
        torch.from_numpy(framed.part("instances").boxes_xyxy), boxes.as_subclass(torch.Tensor)
    )
    assert (framed.part("semantic") != IGNORE_INDEX).sum() == height * width
    assert equal(crop(framed, top, left, height, width, 0.0), start)


@pytest.mark.parametrize(
    "change",
    [Flip(p=1), Flip(p=1, direction="vertical"), RandomCrop(min_visible=0), Zoom(min_visible=0)],
)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_boxes_fit_what_the_map_shows(change: Augmentation, seed: int) -> None:
    """One object a scene, so that nothing covers it: its box is the box around its pixels, to
    the pixel.
    """
    after = apply(scene(seed, objects=1), change, seed)
    shown = boxes_of(after.part("semantic"), np.array([1]))
    assert set(shown) == set(after.part("instances").classes.tolist())
    for value, box in zip(
        after.part("instances").classes, after.part("instances").boxes_xyxy, strict=True
    ):
        assert shown[int(value)] == tuple(box)
    assert after.part("semantic").shape == after.image.shape[:2]
    assert (after.image[after.part("semantic") == 1] > 0).all()


def test_a_box_that_stays_behind_would_be_seen() -> None:
    """Negative control of the test above."""
    start = scene(3, objects=1)
    after = with_objects(flip(start, "horizontal"), start.part("instances"))
    assert boxes_of(after.part("semantic"), np.array([1]))[1] != tuple(
        after.part("instances").boxes_xyxy[0]
    )


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_mosaic_boxes_fit_the_map_to_a_pixel(seed: int) -> None:
    scenes = [scene(seed + part, 30 + 3 * part, 50 - 5 * part, objects=1) for part in range(4)]
    for part, each in enumerate(scenes):
        each.part("semantic")[each.part("semantic") == 1] = part + 1
        each.part("instances").classes[:] = part + 1
    after = augmented(
        scenes[0],
        (Mosaic(p=1, min_visible=0),),
        random.Random(seed),
        lambda start, stop: scenes[1:],
        RULE,
    )
    assert after.hw == (RULE.height, RULE.width)
    shown = boxes_of(after.part("semantic"), np.arange(1, 5))
    for value, box in zip(
        after.part("instances").classes.tolist(), after.part("instances").boxes_xyxy, strict=True
    ):
        assert (box >= 0).all()
        assert (box <= [RULE.width, RULE.height] * 2).all()
        if (box[2:] - box[:2]).min() >= 2:
            assert np.abs(np.array(shown[value]) - box).max() <= 1.0


def test_mosaic_joins_labels_and_keeps_what_is_unknown_out() -> None:
    scenes = [scene(part) for part in range(4)]
    after = augmented(
        scenes[0], (Mosaic(p=1),), random.Random(1), lambda start, stop: scenes[1:], RULE
    )
    assert after.part("labels").tolist() == [0, 1, 2, 3]
    blind = [*scenes[:3], scene(9, annotated=False)]
    after = augmented(
        blind[0], (Mosaic(p=1),), random.Random(1), lambda start, stop: blind[1:], RULE
    )
    assert after.part("labels") is None
    ignored = after.part("instances").boxes_xyxy[after.part("instances").crowd]
    assert len(ignored) == 1
    x1, y1, x2, y2 = ignored[0].astype(int)
    assert (after.part("semantic")[y1:y2, x1:x2] == IGNORE_INDEX).all()
    none = [scene(part, annotated=False) for part in range(4)]
    after = augmented(none[0], (Mosaic(p=1),), random.Random(1), lambda start, stop: none[1:], RULE)
    assert (after.part("labels"), after.part("instances"), after.part("semantic")) == (
        None,
        None,
        None,
    )


def test_boxes_with_too_little_visible_are_dropped_and_crowds_stay() -> None:
    boxes = np.array([[0, 0, 10, 10], [6, 0, 16, 10], [9, 0, 19, 10], [9, 0, 19, 10]], np.float32)
    objects = Objects(
        boxes_xyxy=boxes, classes=np.arange(4), crowd=np.array([False, False, False, True])
    )
    start = with_objects(scene(0, 20, 20), objects)
    part = crop(start, 0, 0, 20, 10, min_visible=0.3)
    assert part.part("instances").classes.tolist() == [0, 1, 3]
    assert part.part("instances").boxes_xyxy[:, 2].max() == 10
    assert crop(start, 0, 0, 20, 10, min_visible=0.0).part("instances").classes.tolist() == [
        0,
        1,
        2,
        3,
    ]


@pytest.mark.parametrize("change", [Flip(p=0.5), RandomCrop(), Zoom(), Colour(), Mosaic(p=0.5)])
def test_chance_comes_from_the_given_numbers_alone(change: Augmentation) -> None:
    start = scene(5)
    before = start.image.copy()
    assert all(equal(apply(start, change, seed), apply(start, change, seed)) for seed in range(6))
    assert not all(
        equal(apply(start, change, 0), apply(start, change, seed)) for seed in range(1, 12)
    )
    assert (start.image == before).all(), "the scene itself must stay: it may be kept for mosaics"


def test_never_with_probability_zero() -> None:
    start = scene(5)
    for change in (Flip(p=0), RandomCrop(p=0), Zoom(p=0), Colour(p=0), Mosaic(p=0)):
        assert apply(start, change) is start


def test_brightness_saturation_and_contrast_are_torchvisions() -> None:
    image = np.random.default_rng(0).integers(60, 180, (31, 17, 3), dtype=np.uint8)
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    mean = float(reference.rgb_to_grayscale(tensor).mean()) * 255
    pixels = np.concatenate([image.astype(np.float64), np.ones((31, 17, 1))], axis=2)
    for factors, expected in (
        ((1.2, 1, 1, 0), reference.adjust_brightness(tensor, 1.2)),
        ((1, 0.7, 1, 0), reference.adjust_contrast(tensor, 0.7)),
        ((1, 1, 1.3, 0), reference.adjust_saturation(tensor, 1.3)),
    ):
        mine = pixels @ color_matrix(*factors, mean).T
        assert np.abs(mine - expected.permute(1, 2, 0).numpy() * 255).max() < 0.1


def test_hue_leaves_grey_and_brightness_alone_and_comes_round() -> None:
    grey = np.array([100.0, 100.0, 100.0, 1.0])
    red = np.array([200.0, 40.0, 40.0, 1.0])
    turned = color_matrix(1, 1, 1, 0.3, 0)
    assert np.abs(turned @ grey - 100).max() < 0.1
    assert np.abs(turned @ red - red[:3]).max() > 50
    assert (
        abs(np.dot(turned @ red, [0.299, 0.587, 0.114]) - np.dot(red[:3], [0.299, 0.587, 0.114]))
        < 0.1
    )
    assert np.abs(color_matrix(1, 1, 1, 1.0, 0) @ red - red[:3]).max() < 0.1


def test_colour_changes_no_more_than_asked() -> None:
    start = scene(1)
    same = color_jitter(
        start, Colour(brightness=0, contrast=0, saturation=0, hue=0), random.Random(0)
    )
    assert np.abs(same.image.astype(int) - start.image).max() <= 1
    assert same.part("semantic") is start.part("semantic")
    other = color_jitter(start, Colour(), random.Random(0))
    assert np.abs(other.image.astype(int) - start.image).max() > 5
