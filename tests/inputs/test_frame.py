"""What is put on the canvas comes back: boxes, points and maps, for every rule and for extreme
images.
"""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.inputs.frame import frame_of, map_to_image, place, place_map, resized
from mtl_ray.inputs.image import Canvas

KINDS = ("stretch", "letterbox", "crop")
EXTREME = [
    (1, 1),
    (1, 5000),
    (5000, 1),
    (2, 3),
    (3, 4000),
    (64, 48),
    (48, 64),
    (128, 96),
    (97, 131),
]

rules = st.builds(
    Canvas,
    kind=st.sampled_from(KINDS),
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    kernel=st.sampled_from(["area", "linear"]),
    pad=st.integers(0, 255),
)
sides = st.integers(1, 120)


@given(rules, sides, sides, st.data())
@settings(max_examples=200, deadline=None)
def test_boxes_and_points_come_back(
    rule: Canvas, height: int, width: int, data: st.DataObject
) -> None:
    frame = frame_of(height, width, rule)
    corners = st.tuples(st.floats(0, 1), st.floats(0, 1))
    points = np.array(data.draw(st.lists(corners, min_size=2, max_size=6)), np.float32) * np.array(
        [width, height], np.float32
    )
    assert np.abs(frame.points_to_image(frame.points_to_canvas(points)) - points).max() < 1e-2
    boxes = np.concatenate(
        [np.minimum(points[:-1], points[1:]), np.maximum(points[:-1], points[1:])], axis=1
    )
    assert np.abs(frame.boxes_to_image(frame.boxes_to_canvas(boxes)) - boxes).max() < 1e-2
    assert (
        np.abs(frame.boxes_to_canvas(boxes)[:, :2] - frame.points_to_canvas(boxes[:, :2])).max()
        < 1e-3
    )


@given(rules, sides, sides)
@settings(max_examples=200, deadline=None)
def test_the_valid_area_is_where_the_image_lies(rule: Canvas, height: int, width: int) -> None:
    image = np.full((height, width, 3), 255 - rule.pad if rule.pad != 127 else 0, np.uint8)
    canvas, frame = place(image, rule)
    assert canvas.shape == (rule.height, rule.width, 3)
    assert canvas.dtype == np.uint8
    assert canvas.flags.c_contiguous
    holds = (canvas == image[0, 0]).all(axis=2)
    expected = np.zeros_like(holds)
    expected[: frame.valid_height, : frame.valid_width] = True
    assert (holds == expected).all()
    assert (canvas[~holds] == rule.pad).all()
    assert frame == frame_of(height, width, rule)
    whole = frame.boxes_to_canvas(np.array([[0, 0, width, height]], np.float32))[0]
    seen = np.clip(whole, 0, [rule.width, rule.height] * 2)
    assert np.abs(seen - [0, 0, frame.valid_width, frame.valid_height]).max() < 1e-3
    if rule.kind != "letterbox":
        assert (frame.valid_height, frame.valid_width) == (rule.height, rule.width)
    else:
        assert frame.valid_height == rule.height or frame.valid_width == rule.width


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", EXTREME)
@pytest.mark.parametrize("kernel", ["area", "linear"])
def test_extreme_images(kind: str, size: tuple[int, int], kernel: str) -> None:
    rule = Canvas(kind=kind, height=60, width=80, kernel=kernel)  # type: ignore[arg-type]
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    canvas, frame = place(image, rule)
    assert canvas.shape == (60, 80, 3)
    assert frame.valid_height >= 1
    assert frame.valid_width >= 1
    whole = np.array([[0, 0, size[1], size[0]]], np.float32)
    assert np.abs(frame.boxes_to_image(frame.boxes_to_canvas(whole)) - whole).max() < 1e-2
    classes = (image[..., 0] % 5).astype(np.uint8)
    assert map_to_image(place_map(classes, frame, 255), frame).shape == size


@given(sides, sides, st.integers(1, 3), st.sampled_from(KINDS))
@settings(max_examples=100, deadline=None)
def test_a_map_enlarged_comes_back_whole(height: int, width: int, factor: int, kind: str) -> None:
    """Enlarged by a whole number, each pixel of the map lies on the canvas, so that nothing is
    lost on the way back.
    """
    rule = Canvas(kind=kind, height=height * factor, width=width * factor)  # type: ignore[arg-type]
    classes = np.random.default_rng(height * 200 + width).integers(
        0, 20, (height, width), dtype=np.uint8
    )
    frame = frame_of(height, width, rule)
    placed = place_map(classes, frame, 255)
    assert (placed == classes.repeat(factor, axis=0).repeat(factor, axis=1)).all()
    assert (map_to_image(placed, frame) == classes).all()


@given(
    st.integers(20, 120),
    st.integers(20, 120),
    rules.filter(lambda rule: rule.kind != "crop" and min(rule.height, rule.width) >= 20),
)
@settings(max_examples=100, deadline=None)
def test_map_and_boxes_agree(height: int, width: int, rule: Canvas) -> None:
    """A rectangle in the map lies on the canvas where its box does, and comes back, to a pixel
    of the coarser of the two.
    """
    box = np.array(
        [[width // 4, height // 4, width - width // 5, height - height // 5]], np.float32
    )
    x1, y1, x2, y2 = box[0].astype(int)
    classes = np.zeros((height, width), np.uint8)
    classes[y1:y2, x1:x2] = 1
    frame = frame_of(height, width, rule)
    placed = place_map(classes, frame, 255)
    if (placed == 1).any():
        rows, columns = np.nonzero(placed == 1)
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(found - frame.boxes_to_canvas(box)[0]).max() <= 1.0
    back = map_to_image(placed, frame)
    differing = (back != classes).sum()
    coarse = max(1, 1 / frame.scale_x, 1 / frame.scale_y)
    assert differing <= 2 * (height + width) * coarse
    assert (
        placed == 255
    ).sum() == rule.height * rule.width - frame.valid_height * frame.valid_width


def test_crop_is_centred_and_the_map_takes_the_nearest_edge_outside() -> None:
    rule = Canvas(kind="crop", height=10, width=10)
    classes = np.tile(np.arange(30, dtype=np.uint8), (10, 1))
    frame = frame_of(10, 30, rule)
    assert (frame.scale_x, frame.offset_x) == (1.0, -10.0)
    placed = place_map(classes, frame, 255)
    assert placed[0].tolist() == list(range(10, 20))
    assert map_to_image(placed, frame)[0].tolist() == [10] * 10 + list(range(10, 20)) + [19] * 10


def test_area_is_the_mean_of_what_is_covered_and_linear_is_not() -> None:
    """Negative control: the two kernels must not give the same image, or a test that compares
    pipelines would show nothing.
    """
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mean = image.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    area, _ = place(image, Canvas(height=16, width=16, kernel="area"))
    linear, _ = place(image, Canvas(height=16, width=16, kernel="linear"))
    assert np.abs(area - mean).max() <= 0.51
    assert np.abs(linear - mean).max() > 20


def test_an_image_of_the_canvas_size_stays_bit_for_bit() -> None:
    image = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for kind in KINDS:
        canvas, frame = place(image, Canvas(kind=kind, height=30, width=40))
        assert (canvas == image).all()
        assert (frame.scale_x, frame.offset_y) == (1.0, 0.0)


def test_an_image_that_is_no_contiguous_array_is_placed_the_same() -> None:
    image = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    rule = Canvas(height=33, width=44)
    part = image[3:40, 5:60]
    assert (place(part, rule)[0] == place(part.copy(), rule)[0]).all()


@given(st.integers(30, 90), st.integers(30, 90), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_scaled_is_close_to_the_exact_mean_over_what_is_covered(
    height: int, width: int, seed: int
) -> None:
    """Much closer than bilinear sampling, which leaves pixels out."""
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (200, 200), interpolation=cv2.INTER_LINEAR)
    image = np.clip(image + np.random.default_rng(seed).normal(0, 12, image.shape), 0, 255).astype(
        np.uint8
    )
    exact = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(int)
    error = np.abs(resized(image, height, width) - exact).mean()
    bilinear = np.abs(
        cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR) - exact
    ).mean()
    assert error < 1.5
    assert error < bilinear / 2
    assert resized(image, 200, 200) is image
