"""Clouds from above, and boxes on them and in cameras."""

import numpy as np
import pytest

from mtl_ray.geometry.birds_eye import (
    VIEWS,
    draw_boxes,
    draw_boxes_on_camera,
    draw_points,
    view_of,
    view_of_image,
)
from tests.geometry.test_cameras import CAMERA

RED, BLUE = (255, 0, 0), (0, 0, 255)
BOX = np.array([[30.0, 0, 0, 4, 2, 1.5, 0.0]])
EMPTY = np.zeros((0, 4), np.float32)


def is_colour(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.abs(image.astype(int) - colour) < 40).all(axis=2)


@pytest.mark.parametrize("view", VIEWS)
def test_front_is_up_and_left_is_left(view: object) -> None:
    assert view in VIEWS
    chosen = VIEWS[VIEWS.index(view)]  # type: ignore[arg-type]
    x, y = chosen.to_image(np.array([[0.0, 0], [10, 0], [0, 10]])).T
    assert x[1] == x[0]
    assert y[1] == y[0] - 10 * chosen.pixels
    assert x[2] == x[0] - 10 * chosen.pixels
    assert view_of_image(np.zeros((*chosen.shape, 3), np.uint8)) is chosen


def test_the_view_has_nearly_all_points() -> None:
    front = np.array([[10.0, 0, 0]] * 99 + [[-40, 0, 0]], np.float32)
    assert view_of(front) is VIEWS[0]
    front[:5, 0] = -40
    assert view_of(front) is VIEWS[1]
    front[:5, 0] = -90
    assert view_of(front) is VIEWS[2]


def test_a_point_is_seen_at_its_place_also_at_the_edge() -> None:
    plain = draw_points(EMPTY)
    points = np.array([[20.0, 5, 0, 0], [71.95, -39.95, 0, 0], [0.01, 0, 2, 0]], np.float32)
    changed = (draw_points(points) != plain).any(axis=2)
    assert changed[519:523, 349:353].sum() == 4  # (72 - 20, 40 - 5) metres, ten pixels each
    assert changed[0, 799]
    assert 6 <= changed.sum() <= 12


def test_higher_points_are_drawn_over_lower_ones() -> None:
    pair = np.array([[20.0, 5, 2, 0], [20, 5, -1.7, 0]], np.float32)
    pair = np.concatenate([pair, np.tile(np.float32([7.3, -1.7, -1.7, 0]), (40, 1))])
    assert np.array_equal(draw_points(pair), draw_points(pair[::-1]))
    assert draw_points(pair)[520, 350, 0] > 200  # warm


def test_a_box_is_drawn_with_its_heading() -> None:
    image = draw_points(EMPTY)
    drawn = is_colour(draw_boxes(image, BOX, [""], [RED]), RED)
    turned = np.add(BOX, [0, 0, 0, 0, 0, 0, np.pi])
    other = is_colour(draw_boxes(image, turned, [""], [RED]), RED)
    # From above the box is 40 x 20 pixels around (400, 420); the front is up.
    assert drawn[420, 388:393].any()
    assert drawn[438:443, 400].any()
    assert drawn[392:397, 400].any()
    assert not other[392:397, 400].any()
    assert other[443:448, 400].any()


def test_labels_say_names_and_scores_and_do_not_overlap() -> None:
    image = draw_points(EMPTY)
    plain = draw_boxes(image, BOX, ["Car"], [RED])
    assert is_colour(plain, RED).sum() > is_colour(draw_boxes(image, BOX, ["Ca"], [RED]), RED).sum()
    scored = draw_boxes(image, BOX, ["Car"], [RED], [0.5])
    assert is_colour(scored, RED).sum() > is_colour(plain, RED).sum()
    # Both labels are whole, although each would like the place of the other.
    label = is_colour(plain, RED).sum() - is_colour(draw_boxes(image, BOX, [""], [RED]), RED).sum()
    both = draw_boxes(image, np.concatenate([BOX, BOX]), ["Car", "Car"], [RED, BLUE])
    assert label > 150
    assert is_colour(both, RED).sum() == is_colour(plain, RED).sum()
    # Its lines are below those of the first; edges of letters may be of either colour.
    assert is_colour(both, BLUE).sum() == pytest.approx(label, abs=5)


def test_boxes_that_have_no_place_or_are_far_away_are_not_drawn() -> None:
    image = draw_points(EMPTY)
    boxes = np.array([[np.nan] * 7, [900.0, 0, 0, 4, 2, 1, 0], [-50, 0, 0, 4, 2, 1, 0]])
    found = draw_boxes(image, boxes, ["a", "b", "c"], [RED] * 3)
    assert np.array_equal(found, image)
    assert found is not image
    assert np.array_equal(draw_boxes(image, boxes[:0], [], []), image)


def test_boxes_are_drawn_in_a_camera_and_those_behind_are_not() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    boxes = np.array([
        [-20.0, 0, 0, 4, 2, 1.5, 0], [10, 0, 0, 4, 2, 2, 0], [30, 0, 0, 4, 2, 2, 0], [np.nan] * 7
    ])  # fmt: skip
    drawn = draw_boxes_on_camera(image, boxes, CAMERA, [""] * 4, [RED, RED, BLUE, RED])
    # The rear face is 8 metres away: 25 pixels around (100, 50).
    columns = np.flatnonzero(drawn[50, :, 0] > 60)  # lines are smooth
    assert columns.min() in (87, 88)
    assert columns.max() in (112, 113)
    blue = np.flatnonzero(drawn[50, :, 2] > 60)
    assert blue.min() >= 95
    assert blue.max() <= 105
    behind = draw_boxes_on_camera(image, boxes[:1], CAMERA, ["Car"], [RED])
    assert not behind.any()
    around = np.array([[0.5, 0, 0, 6, 3, 3, 0.0]])
    assert draw_boxes_on_camera(image, around, CAMERA, ["Car"], [RED]).any()
