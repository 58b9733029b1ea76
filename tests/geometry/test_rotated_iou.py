"""Overlap of boxes in space: equal to exact clipping, also where other programs fail."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mtl_ray.geometry.boxes_3d import footprints
from mtl_ray.geometry.rotated_iou import (
    bev_intersections,
    bev_iou,
    circle_nms,
    common_heights,
    iou_3d,
    paired_intersections,
    rotated_nms,
)

Point = tuple[Fraction, Fraction]


def box(x: float, y: float, length: float, width: float, yaw: float = 0.0) -> np.ndarray:
    """(1, 7) on z = 0, one metre high."""
    return np.array([[x, y, 0.0, length, width, 1.0, yaw]])


def exact_area(first: np.ndarray, second: np.ndarray) -> float:
    """Sutherland and Hodgman with rational numbers, of the two footprints as floats state them."""
    one, other = (
        [(Fraction(float(x)), Fraction(float(y))) for x, y in footprints(each)[0]]
        for each in (first, second)
    )
    for begin, end in zip(other, [*other[1:], other[0]], strict=True):
        one = _left_of(one, begin, end)
    total = Fraction(0)
    for here, there in zip(one, [*one[1:], *one[:1]], strict=True):
        total += here[0] * there[1] - there[0] * here[1]
    return float(total / 2)


def _left_of(polygon: list[Point], begin: Point, end: Point) -> list[Point]:
    def side(point: Point) -> Fraction:
        return (end[0] - begin[0]) * (point[1] - begin[1]) - (end[1] - begin[1]) * (
            point[0] - begin[0]
        )

    kept: list[Point] = []
    for here, there in zip(polygon, [*polygon[1:], *polygon[:1]], strict=True):
        d_here, d_there = side(here), side(there)
        if d_here >= 0:
            kept.append(here)
        if (d_here > 0 > d_there) or (d_here < 0 < d_there):
            share = d_here / (d_here - d_there)
            kept.append(
                (here[0] + share * (there[0] - here[0]), here[1] + share * (there[1] - here[1]))
            )
    return kept


metres, sides = st.floats(-4, 4), st.floats(0.01, 8)
angles = st.one_of(
    st.floats(-4, 4), st.sampled_from([0.0, np.pi / 4, np.pi / 2, np.pi, -np.pi / 2, -np.pi])
)
boxes = st.builds(box, metres, metres, sides, sides, angles)


@given(first=boxes, second=boxes)
@example(first=box(0, 0, 2, 2), second=box(1e-17, 0, 2, 2, 1e-16))
@example(first=box(0, 0, 4, 2), second=box(0, 0, 2, 1, 0.3))  # nested
@example(first=box(0, 0, 2, 2), second=box(0, 0, 2, 2, np.pi / 4))  # an octagon
def test_the_area_is_that_of_exact_clipping(first: np.ndarray, second: np.ndarray) -> None:
    area = bev_intersections(first, second)[0, 0]
    assert area == pytest.approx(exact_area(first, second), abs=1e-13, rel=1e-12)
    assert area == bev_intersections(second, first)[0, 0] == paired_intersections(first, second)[0]


@given(one=boxes, dx=st.floats(-1e-6, 1e-6), dy=st.floats(-1e-6, 1e-6), turn=st.floats(-1e-6, 1e-6))
def test_nearly_equal_boxes_overlap_nearly_whole(
    one: np.ndarray, dx: float, dy: float, turn: float
) -> None:
    other = np.add(one, [dx, dy, 0, 0, 0, 0, turn])
    assert bev_intersections(one, other)[0, 0] == pytest.approx(
        exact_area(one, other), abs=1e-13, rel=1e-12
    )


any_number = st.floats(allow_nan=True, allow_infinity=True)


@given(
    first=st.lists(st.tuples(*[any_number] * 7), min_size=1, max_size=4),
    second=st.lists(st.tuples(*[any_number] * 7), min_size=1, max_size=4),
)
def test_no_number_gives_nan_or_leaves_the_unit_interval(
    first: list[tuple[float, ...]], second: list[tuple[float, ...]]
) -> None:
    one, other = np.array(first), np.array(second)
    for measure in (bev_iou, iou_3d):
        found = measure(one, other)
        assert ((found >= 0) & (found <= 1)).all()
        assert np.array_equal(found, measure(other, one).T)


@given(one=st.lists(boxes, min_size=1, max_size=6).map(np.concatenate))
def test_a_box_overlaps_itself_by_exactly_one(one: np.ndarray) -> None:
    assert (np.diag(bev_iou(one, one)) == 1).all()
    assert (np.diag(iou_3d(one, one)) == 1).all()
    # np.pi is not quite pi: a long box that is turned by it ends beside itself.
    turned = np.add(one, [0, 0, 0, 0, 0, 0, np.pi])
    aspect = one[:, 3:5].max(axis=1) / one[:, 3:5].min(axis=1)
    assert (1 - np.diag(bev_iou(one, turned)) <= 1e-14 + 1e-15 * aspect).all()


def degrees(x: float, y: float, width: float, height: float, angle: float) -> np.ndarray:
    """A box of detectron2."""
    return box(x, y, width, height, np.deg2rad(angle))


@pytest.mark.parametrize(
    ("first", "second", "expected", "tolerance"),
    [
        # OpenPCDet #1425, second.pytorch #157: 0.
        (box(1, 1, 1, 1, 0.3), box(1, 1, 1, 1, 0.3), 1.0, 0.0),
        # OpenPCDet #972: 3e-10.
        (box(-49.3915, 17.5002, 6.41644, 2.78625, 3.13511),) * 2 + (1.0, 0.0),
        # mmcv #2621: .333.
        (box(0, 0, 180.6422271729, 136.3633728027, 0.9559648633),) * 2 + (1.0, 0.0),
        # detectron2 #2167: .5848.
        (
            degrees(2563.744628906, 1436.790161132, 2174.703369140, 214.0950012207, 115.1183471679),
            degrees(2563.744628906, 1436.790283203, 2174.702880859, 214.0949554443, 115.1183547973),
            0.999999,
            1e-6,
        ),
        # lilanxiao/Rotated_IoU #8: .333 for boxes that share an edge; #39: 56 / 84.
        (box(0, 0, 2, 2), box(0, 2, 2, 2), 0.0, 0.0),
        (box(4, 5, 8, 10), box(3, 4, 6, 8), 0.6, 1e-15),
        # detectron2 #1207: .2655, and #4961: .3688; they do not meet.
        (degrees(160, 153, 230, 23, 37), degrees(190, 127, 80, 21, 46), 0.0, 0.0),
        # once_devkit #27: -1.03.
        (
            box(23.3053802, 22.8531830, 0.303450296, 0.271859976, 4.71238898),
            box(23.3053820, 22.8531842, 0.303450286, 0.271859974, 4.71241328),
            0.99997,
            1e-5,
        ),
        # OpenPCDet #1065: huge numbers for negative sides.
        (box(0, 0, -2, 2), box(0, 0, 2, 2), 0.0, 0.0),
        (box(0, 0, -2, -2), box(0, 0, -2, -2), 0.0, 0.0),
        # Degenerate: thin, without area, touching at a corner.
        (box(3, 4, 10, 1e-6, 0.4), box(3, 4, 10, 1e-6, 0.4), 1.0, 0.0),
        (box(0, 0, 0, 2), box(0, 0, 2, 2), 0.0, 0.0),
        (box(0, 0, 2, 2), box(2, 2, 2, 2), 0.0, 0.0),
    ],
)
def test_cases_that_other_programs_get_wrong(
    first: np.ndarray, second: np.ndarray, expected: float, tolerance: float
) -> None:
    assert bev_iou(first, second)[0, 0] == pytest.approx(expected, abs=tolerance, rel=0)
    assert bev_iou(second, first)[0, 0] == bev_iou(first, second)[0, 0]


@given(yaw=st.floats(-4, 4), x=st.floats(-50, 50), y=st.floats(-50, 50), side=st.booleans())
def test_rotated_boxes_that_touch_share_nothing(yaw: float, x: float, y: float, side: bool) -> None:
    step = (4.0, 0.0) if side else (0.0, 2.0)
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    dx, dy = turn @ step
    assert bev_iou(box(x, y, 4, 2, yaw), box(x + dx, y + dy, 4, 2, yaw))[0, 0] < 1e-13


@given(first=boxes, second=boxes, apart=st.floats(-2, 2), height=st.floats(0.1, 3))
def test_the_overlap_in_space_is_area_times_height(
    first: np.ndarray, second: np.ndarray, apart: float, height: float
) -> None:
    second = np.add(second, [0, 0, apart, 0, 0, 0, 0])
    second[:, 5] = height
    tall = max(0.0, min(0.5, apart + height / 2) - max(-0.5, apart - height / 2))
    common = exact_area(first, second) * tall
    union = first[0, 3:6].prod() + second[0, 3:6].prod() - common
    assert iou_3d(first, second)[0, 0] == pytest.approx(common / union, abs=1e-11)
    assert common_heights(first, second)[0] == pytest.approx(tall, abs=1e-12)


@given(first=boxes, second=boxes)
def test_the_frame_of_a_camera_gives_the_same(first: np.ndarray, second: np.ndarray) -> None:
    """KITTI measures x, z, l, w, -ry of the camera, which is the lidar's ground turned."""

    def in_camera(one: np.ndarray) -> np.ndarray:
        turned = one.copy()
        turned[:, 0], turned[:, 1] = -one[:, 1], one[:, 0]
        turned[:, 6] = one[:, 6] + np.pi / 2
        return turned

    assert bev_iou(in_camera(first), in_camera(second)) == pytest.approx(
        bev_iou(first, second), abs=1e-12
    )


def test_the_prefilter_drops_no_pair() -> None:
    rng = np.random.default_rng(0)
    many = np.column_stack(
        [rng.uniform(-12, 12, (60, 3)), rng.uniform(0.2, 9, (60, 3)), rng.uniform(-4, 4, 60)]
    )
    row, column = np.divmod(np.arange(3600), 60)
    paired = paired_intersections(many[row], many[column]).reshape(60, 60)
    assert np.array_equal(bev_intersections(many, many), paired)
    assert 0.02 < (paired > 0).mean() < 0.98  # both kinds are there


def test_no_boxes_have_no_overlap() -> None:
    none = np.zeros((0, 7))
    assert bev_iou(none, box(0, 0, 1, 1)).shape == (0, 1)
    assert iou_3d(box(0, 0, 1, 1), none).shape == (1, 0)
    assert rotated_nms(none, np.zeros(0), 0.5).shape == (0,)
    assert circle_nms(np.zeros((0, 2)), np.zeros(0), 1.0).shape == (0,)


@given(
    several=st.lists(boxes, min_size=1, max_size=12).map(np.concatenate),
    threshold=st.sampled_from([0.0, 0.01, 0.2, 0.5]),
    seed=st.integers(0, 9),
)
def test_rotated_nms_keeps_what_the_plain_loop_keeps(
    several: np.ndarray, threshold: float, seed: int
) -> None:
    scores = np.random.default_rng(seed).integers(0, 4, len(several)) / 4  # with ties
    expected: list[int] = []
    for index in sorted(range(len(several)), key=lambda i: (-scores[i], i)):
        if all(bev_iou(several[[index]], several[[other]]) <= threshold for other in expected):
            expected.append(index)
    assert rotated_nms(several, scores, threshold).tolist() == expected
    assert rotated_nms(several, scores, threshold, limit=2).tolist() == expected[:2]


def test_circle_nms_compares_squared_distances() -> None:
    centres = np.array([[0.0, 0.0], [1.9, 0.0], [2.1, 0.0], [0.0, 2.0]])
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    # 4 square metres: two metres around the first, on the circle too.
    assert circle_nms(centres, scores, 4.0).tolist() == [0, 2]
    assert circle_nms(centres, scores, 1.0).tolist() == [0, 1, 3]
    assert circle_nms(centres, scores, 1.0, limit=2).tolist() == [0, 1]
