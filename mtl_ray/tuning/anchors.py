"""Anchors that fit the boxes of a data set: by ascent with exchanges (the fast way), k-means, and differential evolution.

Boxes and anchors are (width, height) in canvas pixels; the overlap of two is that of boxes with a common centre.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.tasks.detection.levels import FITTING_STRIDES, STRIDES_OF_AN_ANCHOR, stride_of
from mtl_ray.tuning.anchor_climb import climb, settle
from mtl_ray.tuning.anchor_points import CHUNK, Points, Shapes, nearest, points_of, spread

COARSE, FINER = 96, 192
"""Cells along each side of the histogram upon which anchors are looked for, and of that upon which the best are refined."""

ANSWERS = 2.0
"""See ``yolov3_targets.MAX_RATIO``, which is not imported for torch."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How well anchors suit boxes.

    Attributes:
        average_iou: mean over the boxes of their overlap with the nearest anchor.
        best_possible_recall: share of the boxes of which some anchor is at most 4 times as wide and as high, and at least a quarter.
    """

    average_iou: float
    best_possible_recall: float


def measure(shapes: Shapes, anchors: Shapes) -> Fit:
    """How well anchors (K, 2) suit all boxes (N, 2)."""
    recalled, limit = 0, np.log(4.0)
    with np.errstate(divide="ignore"):  # an anchor of no size recalls nothing
        logs = [np.log(anchors[:, side]) for side in (0, 1)]
    for start in range(0, len(shapes), CHUNK):
        width, height = np.log(shapes[start : start + CHUNK]).T
        apart = np.maximum(abs(np.subtract.outer(logs[0], width)), abs(np.subtract.outer(logs[1], height)))
        recalled += int((apart.min(axis=0) <= limit + 1e-12).sum())
    return Fit(average_iou=float(nearest(shapes, anchors)[1].mean()), best_possible_recall=recalled / len(shapes))


def fast(shapes: Shapes, num: int, *, seed: int = 0) -> Shapes:
    """Anchors by ascent along the gradient of the mean overlap, from k-means++ starts and then from exchanges.

    An exchange takes away an anchor that is missed little and puts one where boxes are covered badly (as random swaps do for k-means;
    Fraenti 2018, doi 10.1186/s40537-018-0122-y), climbs from there, and stays if that is better. All happens on a histogram of the
    shapes, so the time hardly depends on how many boxes there are.

    Args:
        shapes: (N, 2) of the boxes, above 0.
        num: of anchors.
        seed: of starts and exchanges.

    Returns:
        (num, 2) by area.
    """
    rng = np.random.default_rng(seed)
    points = points_of(shapes, COARSE)
    starts = [climb(points, spread(points, num, rng), _SHORT) for _ in range(_STARTS)]
    anchors = max(starts, key=points.average)
    for _ in range(int(np.clip(_WORK / len(points), _FEWEST, _MOST))):
        other = climb(points, _exchanged(points, anchors, rng), _SHORT)
        anchors = max(anchors, other, key=points.average)
    return refine(shapes, anchors)


_STARTS, _SHORT, _LONG = 4, 10, 100
"""How many climbs from k-means++ starts; how many rounds each, and the last one."""
_FEWEST, _MOST, _WORK = 60, 300, 400_000
"""Exchanges at least and at most; in between, so many that this many points are looked at."""


def refine(shapes: Shapes, anchors: Shapes) -> Shapes:
    """The maximum near some anchors, on a finer histogram, (K, 2) by area."""
    finer = points_of(shapes, FINER)
    return by_area(settle(finer, climb(finer, anchors, _LONG)))


def _exchanged(points: Points, anchors: Shapes, rng: np.random.Generator) -> Shapes:
    overlaps = points.overlaps(anchors)
    best = overlaps.max(axis=0)
    second = np.partition(overlaps, -2, axis=0)[-2] if len(anchors) > 1 else np.zeros(len(points))
    missed = np.bincount(overlaps.argmax(axis=0), weights=(best - second) * points.weights, minlength=len(anchors))
    leaves, comes = 1 / (missed + 1e-12), points.weights * (1 - best) + 1e-12
    moved = anchors.copy()
    moved[rng.choice(len(anchors), p=leaves / leaves.sum())] = points.shapes[rng.choice(len(points), p=comes / comes.sum())]
    return moved


_PLACED = 100_000
"""So many points are about placed in all starts of k-means together."""


def kmeans(shapes: Shapes, num: int, *, seed: int = 0, restarts: int | None = None, rounds: int = 300) -> Shapes:
    """Anchors by k-means with 1 - IoU as distance (Redmon and Farhadi 2017, YOLO9000, section 2), the best of some k-means++ starts.

    Args:
        shapes: of the boxes.
        num: of anchors.
        seed: of the starts.
        restarts: how many; by default 20, and up to 100 where there are few boxes.
        rounds: at most, of each.

    Returns:
        (num, 2) by area.
    """
    rng = np.random.default_rng(seed)
    points = points_of(shapes, FINER)
    restarts = restarts or int(np.clip(_PLACED / len(points), 20, 100))
    found = [_lloyd(points, spread(points, num, rng), rounds) for _ in range(restarts)]
    return by_area(max(found, key=points.average))


def _lloyd(points: Points, anchors: Shapes, rounds: int) -> Shapes:
    """Assigns and averages until nothing changes; an anchor without boxes stays where it is."""
    nearest = np.full(len(points), -1)
    for _ in range(rounds):
        before, nearest = nearest, points.overlaps(anchors).argmax(axis=0)
        if (before == nearest).all():
            break
        weight = np.bincount(nearest, points.weights, minlength=len(anchors))
        sums = [np.bincount(nearest, points.weights * side, minlength=len(anchors)) for side in (points.width, points.height)]
        used = weight > 0
        anchors = np.where(used[:, None], np.stack(sums, axis=1) / np.where(used, weight, 1)[:, None], anchors)
    return np.asarray(anchors)


def evolve(shapes: Shapes, num: int, *, seed: int = 0, rounds: int = 200) -> Shapes:
    """Anchors by differential evolution (Storn and Price 1997) of the mean overlap, k-means in the first generation.

    Returns:
        (num, 2) by area.
    """
    rng = np.random.default_rng(seed)
    start, points = kmeans(shapes, num, seed=seed), points_of(shapes, COARSE)
    bounds = [(float(side.min()), float(side.max()) + 1e-6) for _ in range(num) for side in (points.width, points.height)]

    from scipy.optimize import differential_evolution  # takes as long to import as the fast way to look

    def cost(flat: NDArray[np.float64]) -> float:
        return 1.0 - points.average(flat.reshape(-1, 2))

    x0 = np.clip(start.ravel(), *np.array(bounds).T)
    found = differential_evolution(cost, bounds, x0=x0, rng=rng, maxiter=rounds, tol=1e-4, popsize=4, polish=False)
    return by_area(np.asarray(found.x).reshape(-1, 2))


def by_area(anchors: Shapes) -> Shapes:
    """Anchors from the smallest to the largest."""
    return np.asarray(anchors[np.argsort(anchors.prod(axis=1), kind="stable")])


def strides_of(levels: Sequence[str]) -> NDArray[np.int64]:
    """Canvas pixels per cell of levels that are called after their number: P3 has stride 8, (L,)."""
    return np.array([stride_of(level) for level in levels], np.int64)


def level_of(anchors: Shapes, levels: Sequence[str]) -> NDArray[np.int64]:
    """The level of each anchor: the one of whose stride its size is nearest to ``STRIDES_OF_AN_ANCHOR`` times, on a logarithmic scale.

    Args:
        anchors: (K, 2) canvas pixels.
        levels: L names that contain the number of the level (P3 has stride 8), in any order.

    Returns:
        (K,) indices into ``levels``.
    """
    in_strides = _sizes(anchors)[:, None] / strides_of(levels)
    return np.asarray(abs(np.log2(in_strides / STRIDES_OF_AN_ANCHOR)).argmin(axis=1))


def by_level(anchors: Shapes, levels: Sequence[str]) -> dict[str, list[list[float]]]:
    """Anchors as a head's config lists them: those of each level by area, in the order of ``levels``.

    Args:
        anchors: (K, 2) by area.
        levels: names that contain the number of the level.

    Returns:
        In pixels with two decimals; levels that no anchor belongs to are left out.
    """
    of_level = level_of(anchors, levels)
    return {name: anchors[of_level == i].round(2).tolist() for i, name in enumerate(levels) if (of_level == i).any()}


def measure_on_levels(shapes: Shapes, anchors: Shapes, strides: NDArray[np.int64]) -> Fit:
    """How well anchors suit boxes, counting only the anchors whose level has a stride that fits their size (``FITTING_STRIDES``).

    Args:
        shapes: (N, 2) of the boxes.
        anchors: (K, 2).
        strides: (K,) of the level of each anchor.
    """
    fitting = anchors[fit_their_level(anchors, strides)]
    return measure(shapes, fitting) if len(fitting) else Fit(average_iou=0.0, best_possible_recall=0.0)


def crowding(shapes: Shapes, anchors: Shapes) -> tuple[float, int]:
    """How many anchors answer for one box, and how few of them would do.

    An anchor answers for a box if neither of its sides is ``ANSWERS`` times as long or short.

    Returns:
        The mean over the boxes; and how many anchors, the ones that answer for most boxes first, have all but a hundredth of what all have.
    """
    points = points_of(shapes, COARSE)
    logs = abs(np.log(np.maximum(anchors, 1e-6))[:, None] - np.log(points.shapes))
    answers = (logs < np.log(ANSWERS)).all(axis=2)  # (K, P)
    left = answers.any(axis=0)
    limit, count = 0.01 * float(left @ points.weights), 0
    while float(left @ points.weights) > limit:
        left = left & ~answers[int((answers[:, left] @ points.weights[left]).argmax())]
        count += 1
    return float(answers.sum(axis=0) @ points.weights), max(count, 1)


def fit_their_level(anchors: Shapes, strides: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each anchor (K, 2) has a size that fits the stride (K,) of its level: (K,)."""
    in_strides = _sizes(anchors) / strides
    return np.asarray((in_strides >= FITTING_STRIDES[0]) & (in_strides <= FITTING_STRIDES[1]))


def _sizes(anchors: Shapes) -> NDArray[np.float64]:
    """(K,) square roots of the areas; an anchor of no size counts as a tiny one."""
    return np.asarray(np.sqrt(np.maximum(anchors.prod(axis=1), 1e-6)))
