"""Overlap of boxes in space, from above and in 3-D, and the suppression of overlapping boxes.

The area of two rotated rectangles is exact up to rounding, also where they touch, are nested,
nearly equal or degenerate. Methods that collect crossing points and sort them by angle lose or
double points there. Here nothing is sorted and nothing is decided by a comparison: each edge adds
an integral that is continuous in the coordinates (Green's theorem).
"""

import numpy as np
from numpy.typing import NDArray

CHUNK = 16_384
"""Pairs at a time, so that temporary arrays stay in the cache."""
LARGEST = 1e9
"""Metres; a box with a larger number, such as infinity, overlaps nothing."""


def paired_intersections(
    first: NDArray[np.floating], second: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(n,) square metres that box i of ``first`` and box i of ``second``, both (n, 7), share from
    above. Exchanging them gives the same bits. A box with a NaN, or a side that is not positive,
    shares nothing.
    """
    one, other = _rectangles(first), _rectangles(second)
    areas = np.zeros(len(one), np.float64)
    usable = np.flatnonzero(_usable(one) & _usable(other))
    for start in range(0, len(usable), CHUNK):
        pairs = usable[start : start + CHUNK]
        areas[pairs] = _common_areas(one[pairs], other[pairs])
    return areas


def bev_intersections(
    first: NDArray[np.floating], second: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(N, M) square metres that (N, 7) and (M, 7) boxes share from above; see
    ``paired_intersections``.
    """
    one, other = _rectangles(first), _rectangles(second)
    areas = np.zeros((len(one), len(other)), np.float64)
    rows, columns = _candidates(one, other)
    for start in range(0, len(rows), CHUNK):
        row, column = rows[start : start + CHUNK], columns[start : start + CHUNK]
        areas[row, column] = _common_areas(one[row], other[column])
    return areas


def bev_iou(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, M) intersection over union from above of (N, 7) and (M, 7) boxes; never NaN."""
    common = bev_intersections(first, second)
    return _over_union(common, _areas(first), _areas(second))


def iou_3d(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, M) intersection over union in space of (N, 7) and (M, 7) boxes; never NaN."""
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    common = bev_intersections(one, other)
    row, column = np.nonzero(common)
    common[row, column] *= common_heights(one[row], other[column])
    return _over_union(common, _areas(one) * one[:, 5], _areas(other) * other[:, 5])


def common_heights(
    first: NDArray[np.floating], second: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(n,) metres of height that box i of ``first`` and box i of ``second``, both (n, 7), share."""
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    apart = np.abs(one[:, 2] - other[:, 2])
    # Not top minus bottom, which rounding makes unequal to the height for equal boxes.
    shared = np.minimum((one[:, 5] + other[:, 5]) / 2 - apart, np.minimum(one[:, 5], other[:, 5]))
    return np.asarray(np.nan_to_num(shared, nan=0.0).clip(min=0), np.float64)


def rotated_nms(
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    threshold: float,
    limit: int | None = None,
) -> NDArray[np.int64]:
    """Indices of the boxes that are kept, best first; of equal scores the first box is better.

    Args:
        boxes: (N, 7).
        scores: (N,).
        threshold: a box whose ``bev_iou`` with a kept box is larger is dropped.
        limit: the most that are kept.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    ranked = np.asarray(boxes)[order]
    return order[_greedy(bev_iou(ranked, ranked) > threshold, limit)]


def circle_nms(
    centres: NDArray[np.floating],
    scores: NDArray[np.floating],
    squared_radius: float,
    limit: int | None = None,
) -> NDArray[np.int64]:
    """Indices of the centres that are kept, best first (CenterPoint, https://arxiv.org/abs/2006.11275).

    Args:
        centres: (N, >= 2) x, y in metres.
        scores: (N,).
        squared_radius: square metres: a centre whose squared distance to a kept one is at most this
            is dropped. The published ``min_radius`` values are used so, without a square.
        limit: the most that are kept.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    x, y = np.asarray(centres, np.float64)[order, :2].T
    squared = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    return order[_greedy(squared <= squared_radius, limit)]


def _greedy(suppresses: NDArray[np.bool_], limit: int | None) -> NDArray[np.int64]:
    """Places that are kept of (N, N), best first: each drops all later ones that it suppresses."""
    alive = np.ones(len(suppresses), np.bool_)
    kept: list[int] = []
    for place in range(len(suppresses)):
        if limit is not None and len(kept) >= limit:
            break
        if alive[place]:
            kept.append(place)
            alive &= ~suppresses[place]
    return np.array(kept, np.int64)


def _rectangles(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 5) x, y, length, width, yaw."""
    return np.asarray(boxes, np.float64)[:, [0, 1, 3, 4, 6]]


def _usable(rectangles: NDArray[np.float64]) -> NDArray[np.bool_]:
    known = (np.abs(rectangles) <= LARGEST).all(axis=1)  # False for a NaN
    return np.asarray(known & (rectangles[:, 2:4] > 0).all(axis=1))


def _areas(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N,) square metres; 0 of a box that overlaps nothing."""
    rectangles = _rectangles(boxes)
    return np.asarray(np.where(_usable(rectangles)[:, None], rectangles[:, 2:4], 0.0).prod(axis=1))


def _over_union(
    common: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N, M) of the common measure (N, M) and the measures (N,) and (M,)."""
    found = np.zeros_like(common)
    row, column = np.nonzero(common)
    shared = common[row, column]
    # A common part is never larger than its box, whatever rounding says.
    shared = np.minimum(shared, np.minimum(first[row], second[column]))
    union = first[row] + second[column] - shared
    found[row, column] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return found


def _candidates(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pairs whose circumscribed circles meet."""
    here, there = np.flatnonzero(_usable(first)), np.flatnonzero(_usable(second))
    one, other = first[here], second[there]
    reach, other_reach = (np.hypot(each[:, 2], each[:, 3]) / 2 for each in (one, other))
    squared = (one[:, None, 0] - other[None, :, 0]) ** 2
    squared += (one[:, None, 1] - other[None, :, 1]) ** 2
    row, column = np.nonzero(squared <= (reach[:, None] + other_reach) ** 2)
    return here[row], there[column]


def _common_areas(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) square metres that pairs of usable rectangles (n, 5) share."""
    large, small = _ordered(first, second)
    half_x, half_y = small[:, 2] / 2, small[:, 3] / 2
    x, y = _corners_in(large, small)  # (4, n), counter-clockwise
    apart = (
        (x.min(axis=0) >= half_x)
        | (x.max(axis=0) <= -half_x)
        | (y.min(axis=0) >= half_y)
        | (y.max(axis=0) <= -half_y)
    )
    # Green: the area is minus the integral of y dx around the polygon. Cut to the small rectangle:
    # x is limited to its sides, and y is clamped between its lower and its upper side.
    next_x, next_y = np.roll(x, -1, axis=0), np.roll(y, -1, axis=0)
    width, rise = next_x - x, next_y - y
    begin_x, end_x = np.clip(x, -half_x, half_x), np.clip(next_x, -half_x, half_x)
    begin = y + _ratio(begin_x - x, width) * rise  # y where the edge enters the strip
    end = y + _ratio(end_x - x, width) * rise
    area = -((end_x - begin_x) * _mean_clamped(begin, end, half_y)).sum(axis=0)
    smaller = small[:, 2] * small[:, 3]
    return np.asarray(np.where(apart, 0.0, np.clip(area, 0.0, smaller)), np.float64)


def _ordered(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The larger and the smaller of each pair; of equal areas the order of their numbers decides,
    so that exchanging them changes nothing.
    """
    areas, other_areas = first[:, 2] * first[:, 3], second[:, 2] * second[:, 3]
    exchange = areas < other_areas
    undecided = areas == other_areas
    for column in range(first.shape[1]):
        exchange |= undecided & (first[:, column] < second[:, column])
        undecided &= first[:, column] == second[:, column]
    swap = exchange[:, None]
    return np.where(swap, second, first), np.where(swap, first, second)


def _corners_in(
    boxes: NDArray[np.float64], frames: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """X and y, each (4, n), of the corners of rectangles in the frame of others, both (n, 5)."""
    cosine, sine = np.cos(frames[:, 4]), np.sin(frames[:, 4])
    shift_x, shift_y = boxes[:, 0] - frames[:, 0], boxes[:, 1] - frames[:, 1]
    turn = boxes[:, 4] - frames[:, 4]
    along_x, along_y = boxes[:, 2] / 2 * np.cos(turn), boxes[:, 2] / 2 * np.sin(turn)
    across_x, across_y = -boxes[:, 3] / 2 * np.sin(turn), boxes[:, 3] / 2 * np.cos(turn)
    centre_x = shift_x * cosine + shift_y * sine
    centre_y = shift_y * cosine - shift_x * sine
    x = [along_x + across_x, across_x - along_x, -along_x - across_x, along_x - across_x]
    y = [along_y + across_y, across_y - along_y, -along_y - across_y, along_y - across_y]
    return np.stack(x) + centre_x, np.stack(y) + centre_y


def _mean_clamped(
    begin: NDArray[np.float64], end: NDArray[np.float64], half: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The mean of y, clamped to [-half, half], on the way from ``begin`` to ``end``."""
    rise = end - begin
    lower = _ratio(-half - begin, rise).clip(0, 1)  # where y passes the lower and the upper side
    upper = _ratio(half - begin, rise).clip(0, 1)
    first, second = np.minimum(lower, upper), np.maximum(lower, upper)
    knots = [np.clip(begin + at * rise, -half, half) for at in (first, second)]
    start, stop = np.clip(begin, -half, half), np.clip(end, -half, half)
    # Linear between these places, so trapezoids are exact.
    return np.asarray(
        (
            first * (start + knots[0])
            + (second - first) * (knots[0] + knots[1])
            + (1 - second) * (knots[1] + stop)
        )
        / 2,
        np.float64,
    )


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
