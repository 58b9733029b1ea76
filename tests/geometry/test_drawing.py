"""What is drawn is seen where it belongs, at every size of image."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ray.geometry.appearance import colours_of, is_light
from mtl_ray.geometry.drawing import LEAST_SIDE, Drawing
from mtl_ray.geometry.panels import grid, jpeg, same_size, shrunk

RED = (255, 0, 0)


def black(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


@given(st.integers(0, 200))
@settings(max_examples=30, deadline=None)
def test_colours_do_not_repeat(count: int) -> None:
    colours = colours_of(count)
    assert len(set(colours)) == count
    assert colours == colours_of(count + 5)[:count], (
        "a further class does not change the others' colours"
    )
    assert colours_of(2, ((1, 2, 3), (4, 5, 6), (7, 8, 9))) == ((1, 2, 3), (4, 5, 6))
    assert colours_of(2, ((1, 2, 3),)) == colours_of(2)


def test_words_are_readable_on_every_colour() -> None:
    def luminance(colour: tuple[int, int, int]) -> float:
        linear = [
            value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4
            for value in colour
        ]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    for colour in colours_of(120):
        ink = (0, 0, 0) if is_light(colour) else (255, 255, 255)
        bright, dark = sorted((luminance(colour), luminance(ink)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 3, "the contrast that WCAG 2 asks of large text"


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (32, 32), (320, 200), (1, 5000), (700, 900)])
def test_small_images_are_enlarged_by_whole_numbers(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    drawn = Drawing(image).pixels
    factor = drawn.shape[0] // size[0]
    assert drawn.shape == (size[0] * factor, size[1] * factor, 3)
    assert max(drawn.shape) >= LEAST_SIDE
    assert (factor == 1) == (max(size) >= LEAST_SIDE)
    assert (drawn[::factor, ::factor] == image).all()


def test_a_box_lies_where_it_belongs() -> None:
    drawing = Drawing(black(32, 32))
    drawing.box(np.array([8, 10, 20, 25], np.float32), "", RED)
    drawn = drawing.pixels
    rows, columns = np.nonzero((drawn == RED).all(axis=2))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (80, 100, 200, 250)
    assert (drawn[110:240, 90:190] == 0).all()


def test_a_dashed_box_has_gaps() -> None:
    whole, dashed = Drawing(black(400, 400)), Drawing(black(400, 400))
    box = np.array([50, 50, 350, 350], np.float32)
    whole.box(box, "", RED)
    dashed.box(box, "", RED, dashed=True)
    share = (dashed.pixels > 0).sum() / (whole.pixels > 0).sum()
    assert 0.3 < share < 0.8


def test_words_do_not_cover_each_other_and_stay_inside() -> None:
    drawing = Drawing(black(400, 400))
    for x in range(0, 400, 10):
        drawing.box(np.array([x, 0, x + 5, 5], np.float32), "a long word", RED)
    assert (drawing.pixels[:40] == RED).all(axis=2).any()
    alone, twice = Drawing(black(400, 400)), Drawing(black(400, 400))
    box = np.array([100, 100, 200, 200], np.float32)
    alone.box(box, "one", RED)
    for _ in range(5):
        twice.box(box, "one", RED)
    outside = np.ones((400, 400), bool)
    outside[98:202, 98:202] = False
    places = ((twice.pixels > 0).any(axis=2) & outside).sum() / (
        (alone.pixels > 0).any(axis=2) & outside
    ).sum()
    assert places < 2.5, "above, below, and no third time"
    edge = Drawing(black(400, 400))
    edge.box(np.array([390, 390, 400, 400], np.float32), "a long word", RED)
    assert (edge.pixels[:, 300:] == RED).all(axis=2).sum() > 500


def test_a_tint_stays_in_its_mask() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[10:20, 5:30] = True
    drawing = Drawing(black(40, 40))
    drawing.tint(mask, RED)
    red = drawing.pixels[..., 0] > 60
    large = mask.repeat(8, axis=0).repeat(8, axis=1)
    assert red[large].all()
    assert not red[cv2.dilate(large.astype(np.uint8), np.ones((5, 5))) == 0].any()


def test_classes_get_their_colours_and_the_rest_goes_dark() -> None:
    classes = np.zeros((40, 40), np.uint8)
    classes[:, 20:] = 1
    classes[30:] = 255
    drawing = Drawing(np.full((40, 40, 3), 100, np.uint8))
    drawing.tint_classes(classes, [(255, 0, 0), (0, 255, 0)])
    drawing.name_regions(classes, ["left", "right"], [(255, 0, 0), (0, 255, 0)])
    drawn = drawing.pixels.astype(int)
    assert drawn[5, 5, 0] > drawn[5, 5, 1] + 100
    assert drawn[5, 310, 1] > drawn[5, 310, 0] + 100
    assert drawn[310].max() < 50
    assert (drawn[:240] == (255, 0, 0)).all(axis=2).any(), "a name upon the region's colour"


def test_points_and_lines_are_drawn_if_known() -> None:
    points = np.array([[10, 10, 2], [30, 30, 1], [35, 5, 0]], np.float32)
    drawing = Drawing(black(40, 40))
    drawing.pose(points, [(0, 1), (1, 2)], RED)
    drawn = drawing.pixels
    assert (drawn[80, 80] == RED).all()
    assert (drawn[160, 160] == RED).all()
    assert (drawn[30:50, 270:290] == 0).all(), "an unknown point is not drawn"


def test_captions_end_where_the_image_does() -> None:
    drawing = Drawing(black(320, 320))
    drawing.caption([(f"line {line}", RED) for line in range(100)])
    assert drawing.pixels.shape == (320, 320, 3)
    assert (drawing.pixels[290:, :20] == RED).all(axis=2).any()


def test_a_grid_shows_every_image_whole() -> None:
    sizes = [(20, 30), (50, 10), (7, 7), (40, 40), (1, 60)]
    values = [40, 80, 120, 160, 200]
    images = [
        np.full((*size, 3), value, np.uint8) for size, value in zip(sizes, values, strict=True)
    ]
    for columns, titles in itertools.product(
        (1, 2, 3, 9), ((), [f"image {index}" * 4 for index in range(5)])
    ):
        sheet = grid(images, columns, titles)
        for size, value in zip(sizes, values, strict=True):
            assert (sheet == value).all(axis=2).sum() >= size[0] * size[1]


def test_shrunk_and_jpeg() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 900, 3), dtype=np.uint8)
    assert shrunk(image, 300).shape == (100, 300, 3)
    assert shrunk(image, 900) is image
    assert shrunk(np.zeros((1, 5000, 3), np.uint8), 100).shape == (1, 100, 3)
    flat = np.full((20, 20, 3), (200, 100, 50), np.uint8)
    decoded = cv2.imdecode(np.frombuffer(jpeg(flat), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.astype(int) - flat).max() <= 3


def test_many_small_objects_have_no_words_but_a_legend() -> None:
    """Words as large as the objects would hide them; the colour says what they are."""
    boxes = [
        np.array([x, y, x + 12, y + 12], np.float32)
        for x in range(20, 380, 30)
        for y in range(60, 380, 30)
    ]
    plain, named = Drawing(black(400, 400)), Drawing(black(400, 400))
    for box in boxes:
        plain.box(box, "", RED)
        named.box(box, "face 0.93", RED, legend="face")
    changed = (plain.pixels != named.pixels).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert changed.any()
    assert rows.max() < 30, "the legend is in a corner that has no objects"
    assert columns.max() < 60
    few = Drawing(black(400, 400))
    for box in boxes[:3]:
        few.box(box, "face 0.93", RED, legend="face")
    assert (few.pixels == RED).all(axis=2).sum() > 3 * 400


def test_large_objects_among_many_small_ones_have_words_that_hide_none_of_them() -> None:
    small = [np.array([x, 88, x + 10, 98], np.float32) for x in range(100, 300, 14)]
    drawing = Drawing(black(400, 400))
    for box in small:
        drawing.box(box, "dot", (0, 0, 255), legend="dot")
    drawing.box(np.array([100, 100, 300, 300], np.float32), "large", RED, legend="large")
    drawn = drawing.pixels
    below = (drawn[301:325, 100:140] == RED).all(axis=2)
    assert below.any(), "above it lie the small ones"
    assert (drawn[88:98, 100:300] == (0, 0, 255)).all(axis=2).any(axis=0).sum() >= 2 * len(small)


def test_images_of_one_size_are_whole_and_in_the_middle() -> None:
    sheets = same_size([np.full((10, 30, 3), 7, np.uint8), np.full((20, 10, 3), 9, np.uint8)])
    assert [sheet.shape for sheet in sheets] == [(20, 30, 3)] * 2
    assert (sheets[0][5:15] == 7).all()
    assert (sheets[1][:, 10:20] == 9).all()
    assert ((sheets[0] == 7).sum(), (sheets[1] == 9).sum()) == (900, 600)
    assert same_size([]) == []


def test_words_are_smaller_on_smaller_objects() -> None:
    def height(side: int) -> int:
        drawing = Drawing(black(1200, 1200))
        drawing.box(np.array([400, 400, 400 + side, 400 + side], np.float32), "word", RED)
        return int((drawing.pixels[:400] == RED).all(axis=2).any(axis=1).sum())

    assert height(20) < height(50) < height(400)
