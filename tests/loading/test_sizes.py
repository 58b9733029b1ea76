"""Transforms that scale an image for its canvas."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.augment import augmented
from mtl_ray.loading.config import Augmentation, Colour, Flip
from mtl_ray.loading.moves import resize
from mtl_ray.loading.scene import Scene
from mtl_ray.loading.sizes import MultiScale, Resize, ScaleJitter
from mtl_ray.samples import IGNORE_INDEX
from tests.loading.scenes import box_of, drawn_masks, masked_scene

RULE = Canvas(height=48, width=64, pad=7)
SEEDS = st.integers(0, 10_000)


def apply(start: Scene, seed: int, *changes: Augmentation) -> Scene:
    return augmented(start, changes, random.Random(seed), lambda first, last: [], RULE)


def check_it_fits(after: Scene, *, exact: bool = False) -> None:
    """Boxes, masks and the map say the same. The box of an ellipse that is cut off or shrinks may
    be larger than its mask.
    """
    objects, semantic = after.part("instances"), after.part("semantic")
    assert semantic.shape == after.hw
    for place, mask in enumerate(drawn_masks(after)):
        own = semantic == objects.classes[place]
        box = objects.boxes_xyxy[place]
        assert (mask != own).mean() < 0.02, "the mask is where the map says"
        if mask.any():
            found = np.array(box_of(mask))
            assert ((found - box) * [1, 1, -1, -1] >= -1).all()
            assert not exact or np.abs(found - box).max() <= 1
        assert (box[:2] >= 0).all()
        assert (box[2:] <= after.hw[::-1]).all()


@given(SEEDS, st.integers(20, 120), st.integers(20, 120), st.sampled_from([1, 4]))
@settings(max_examples=60, deadline=None)
def test_everything_is_scaled_alike(seed: int, height: int, width: int, objects: int) -> None:
    start = masked_scene(seed, objects=objects)
    after = resize(start, height, width)
    assert after.hw == (height, width)
    check_it_fits(after, exact=objects == 1)
    factor = np.array([width / start.hw[1], height / start.hw[0]], np.float32)
    kept = np.isin(start.part("instances").classes, after.part("instances").classes)
    points = start.part("instances").keypoints[kept][..., :2] * factor
    assert np.abs(after.part("instances").keypoints[..., :2] - points).max(initial=0) < 1e-3


@given(
    SEEDS,
    st.sampled_from([(0.1, 2.0), (0.8, 1.25), (2.5, 4.0), (0.05, 0.2)]),
    st.sampled_from([1, 4]),
)
@settings(max_examples=60, deadline=None)
def test_scale_jitter_fills_the_canvas_or_its_corner(
    seed: int, scale: tuple[float, float], objects: int
) -> None:
    start = masked_scene(seed, objects=objects)
    after = apply(start, seed, ScaleJitter(scale=scale, min_visible=0))
    assert after.hw == (RULE.height, RULE.width)
    check_it_fits(after, exact=objects == 1)
    assert after.valid_hw is not None
    height, width = after.valid_hw
    largest = min(RULE.height / start.hw[0], RULE.width / start.hw[1])
    for shown, room, side in zip(after.valid_hw, (RULE.height, RULE.width), start.hw, strict=True):
        least, most = side * largest * scale[0], side * largest * scale[1]
        assert min(room, least) - 2 <= shown <= min(room, most) + 2
    outside = np.ones(after.hw, np.bool_)
    outside[:height, :width] = False
    assert (after.image[outside] == RULE.pad).all()
    assert (after.part("semantic")[outside] == IGNORE_INDEX).all()
    assert (after.part("semantic")[:height, :width] != IGNORE_INDEX).all()


def test_scale_jitter_draws_its_whole_range() -> None:
    """The aspect of the image stays, whatever the scale."""
    start, found = masked_scene(1, 48, 48), []
    for seed in range(200):
        height, width = apply(start, seed, ScaleJitter()).valid_hw or (0, 0)
        if height < 46:  # a canvas that is almost filled may have a row of padding
            assert abs(height - width) <= 1
            found.append(height / 48)
    assert min(found) < 0.2
    assert 0.3 < len(found) / 200 < 0.6, "below 1 is 0.9 of 1.9"


@given(SEEDS, st.integers(30, 90), st.integers(30, 90))
@settings(max_examples=40, deadline=None)
def test_the_shorter_side_has_one_of_the_lengths(seed: int, height: int, width: int) -> None:
    start = masked_scene(seed, height, width)
    rule = Canvas(height=200, width=200, pad=7)
    change = Resize(short_side=(40, 60), step=10, long_side=100)
    after = augmented(start, (change,), random.Random(seed), lambda first, last: [], rule)
    assert after.hw == (200, 200)
    check_it_fits(after)
    short, long = sorted(after.valid_hw or ())
    assert long <= 100
    assert long == 100 or short in (40, 50, 60)
    assert abs(long / short - max(height, width) / min(height, width)) < 0.1


def test_a_canvas_that_is_too_small_bounds_the_scale() -> None:
    after = apply(masked_scene(0), 0, Resize(short_side=(640, 800)))
    assert after.hw == (48, 64)
    assert after.valid_hw == (48, 64)
    with pytest.raises(ValueError, match="the least comes first"):
        Resize(short_side=(800, 640))


def test_what_is_padding_is_known_until_the_image_is_moved() -> None:
    start, small = masked_scene(0), ScaleJitter(scale=(0.5, 0.5))
    assert apply(start, 0, small).valid_hw == (24, 32)
    assert apply(start, 0, small, Colour()).valid_hw == (24, 32)
    assert apply(start, 0, small, Flip(p=1)).valid_hw is None


def test_sizes_are_multiples_between_the_scales() -> None:
    found = MultiScale(scale=(0.7, 1.3)).sizes_for(640, 640)
    assert found == tuple((side, side) for side in range(448, 833, 32)), "YOLOX's 14 to 26 times 32"
    wide = MultiScale(scale=(0.5, 1.5)).sizes_for(320, 640)
    assert all(abs(width - 2 * height) < 32 for height, width in wide)
    assert MultiScale(sizes=((64, 96), (32, 32))).sizes_for(5, 5) == ((64, 96), (32, 32))
    with pytest.raises(ValueError, match="no multiple of 32"):
        MultiScale(scale=(0.9, 1.1)).sizes_for(80, 80)
