"""Fits anchors to the boxes of a dataset: by gradient ascent with exchanges (fast), k-means, or
differential evolution.

Boxes and anchors are (width, height) in canvas pixels. The overlap of two shapes is their
intersection over union with a common centre.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.tasks.detection.options import FITTING_STRIDES, STRIDES_OF_AN_ANCHOR, stride_of
from mtl_ray.tuning.anchor_climb import climb_anchors, refine_by_steps
from mtl_ray.tuning.anchor_points import (
    CHUNK,
    BoxShapes,
    Shapes,
    nearest_anchors,
    reduced_points,
    spread_anchors,
)

COARSE, FINER = 96, 192
"""Cells along each side of the histogram on which anchors are searched, and of that on which the
best are refined."""

ANSWERS = 2.0
"""Equals ``yolov3_targets.MAX_RATIO``, which is not imported because it would import torch."""


@dataclass(frozen=True, kw_only=True)
class AnchorFit:
    """How well anchors fit boxes.

    Attributes:
        average_iou: mean over the boxes of the overlap with the nearest anchor.
        best_possible_recall: share of the boxes for which an anchor has between 1/4 and 4 times
            their width and height.
    """

    average_iou: float
    best_possible_recall: float


def measure_anchors(shapes: Shapes, anchors: Shapes) -> AnchorFit:
    """How well anchors (K, 2) fit boxes (N, 2)."""
    recalled, limit = 0, np.log(4.0)
    with np.errstate(divide="ignore"):  # an anchor of size 0 recalls nothing
        logs = [np.log(anchors[:, side]) for side in (0, 1)]
    for start in range(0, len(shapes), CHUNK):
        width, height = np.log(shapes[start : start + CHUNK]).T
        apart = np.maximum(
            abs(np.subtract.outer(logs[0], width)), abs(np.subtract.outer(logs[1], height))
        )
        recalled += int((apart.min(axis=0) <= limit + 1e-12).sum())
    return AnchorFit(
        average_iou=float(nearest_anchors(shapes, anchors)[1].mean()),
        best_possible_recall=recalled / len(shapes),
    )


def fast_anchors(shapes: Shapes, num: int, *, seed: int = 0) -> Shapes:
    """Anchors by gradient ascent of the mean overlap, from k-means++ starts and then from
    exchanges.

    An exchange removes an anchor that contributes little, adds one where boxes are covered badly
    (as random swaps do for k-means; Fraenti 2018, doi 10.1186/s40537-018-0122-y), climbs from
    there, and is kept if the result is better. The search runs on a histogram of the shapes, so its
    time hardly depends on the number of boxes.

    Args:
        shapes: (N, 2) of the boxes, above 0.
        num: number of anchors.
        seed: of starts and exchanges.

    Returns:
        (num, 2) by area.
    """
    rng = np.random.default_rng(seed)
    points = reduced_points(shapes, COARSE)
    starts = [
        climb_anchors(points, spread_anchors(points, num, rng), _SHORT) for _ in range(_STARTS)
    ]
    anchors = max(starts, key=points.average)
    for _ in range(int(np.clip(_WORK / len(points), _FEWEST, _MOST))):
        other = climb_anchors(points, _exchanged(points, anchors, rng), _SHORT)
        anchors = max(anchors, other, key=points.average)
    return refine_anchors(shapes, anchors)


_STARTS, _SHORT, _LONG = 4, 10, 100
"""Number of climbs from k-means++ starts; rounds of each, and of the last one."""
_FEWEST, _MOST, _WORK = 60, 300, 400_000
"""Fewest and most exchanges; in between, the number of exchanges times the number of points is
``_WORK``."""


def refine_anchors(shapes: Shapes, anchors: Shapes) -> Shapes:
    """The maximum near some anchors on a finer histogram; (K, 2) by area."""
    finer = reduced_points(shapes, FINER)
    return by_area(refine_by_steps(finer, climb_anchors(finer, anchors, _LONG)))


def _exchanged(points: BoxShapes, anchors: Shapes, rng: np.random.Generator) -> Shapes:
    overlaps = points.overlaps(anchors)
    best = overlaps.max(axis=0)
    second = np.partition(overlaps, -2, axis=0)[-2] if len(anchors) > 1 else np.zeros(len(points))
    missed = np.bincount(
        overlaps.argmax(axis=0), weights=(best - second) * points.weights, minlength=len(anchors)
    )
    leaves, comes = 1 / (missed + 1e-12), points.weights * (1 - best) + 1e-12
    moved = anchors.copy()
    moved[rng.choice(len(anchors), p=leaves / leaves.sum())] = points.shapes[
        rng.choice(len(points), p=comes / comes.sum())
    ]
    return moved


_PLACED = 100_000
"""Number of points times number of starts of k-means, roughly."""


def kmeans_anchors(
    shapes: Shapes, num: int, *, seed: int = 0, restarts: int | None = None, rounds: int = 300
) -> Shapes:
    """Anchors by k-means with 1 - IoU as distance (Redmon and Farhadi 2017, YOLO9000, section 2),
    the best of several k-means++ starts.

    Args:
        shapes: of the boxes.
        num: number of anchors.
        seed: of the starts.
        restarts: number of starts; by default 20, and up to 100 for few boxes.
        rounds: most rounds of each start.

    Returns:
        (num, 2) by area.
    """
    rng = np.random.default_rng(seed)
    points = reduced_points(shapes, FINER)
    restarts = restarts or int(np.clip(_PLACED / len(points), 20, 100))
    found = [_lloyd(points, spread_anchors(points, num, rng), rounds) for _ in range(restarts)]
    return by_area(max(found, key=points.average))


def _lloyd(points: BoxShapes, anchors: Shapes, rounds: int) -> Shapes:
    """Assigns and averages until nothing changes; an anchor without boxes does not move."""
    nearest = np.full(len(points), -1)
    for _ in range(rounds):
        before, nearest = nearest, points.overlaps(anchors).argmax(axis=0)
        if (before == nearest).all():
            break
        weight = np.bincount(nearest, points.weights, minlength=len(anchors))
        sums = [
            np.bincount(nearest, points.weights * side, minlength=len(anchors))
            for side in (points.width, points.height)
        ]
        used = weight > 0
        anchors = np.where(
            used[:, None], np.stack(sums, axis=1) / np.where(used, weight, 1)[:, None], anchors
        )
    return np.asarray(anchors)


def evolve_anchors(shapes: Shapes, num: int, *, seed: int = 0, rounds: int = 200) -> Shapes:
    """Anchors by differential evolution (Storn and Price 1997) of the mean overlap.

    The first generation contains the result of k-means.

    Returns:
        (num, 2) by area.
    """
    rng = np.random.default_rng(seed)
    start, points = kmeans_anchors(shapes, num, seed=seed), reduced_points(shapes, COARSE)
    bounds = [
        (float(side.min()), float(side.max()) + 1e-6)
        for _ in range(num)
        for side in (points.width, points.height)
    ]

    # its import takes as long as a whole fast search
    from scipy.optimize import (
        differential_evolution,
    )

    def cost(flat: NDArray[np.float64]) -> float:
        return 1.0 - points.average(flat.reshape(-1, 2))

    x0 = np.clip(start.ravel(), *np.array(bounds).T)
    found = differential_evolution(
        cost, bounds, x0=x0, rng=rng, maxiter=rounds, tol=1e-4, popsize=4, polish=False
    )
    return by_area(np.asarray(found.x).reshape(-1, 2))


def by_area(anchors: Shapes) -> Shapes:
    """Anchors from the smallest to the largest."""
    return np.asarray(anchors[np.argsort(anchors.prod(axis=1), kind="stable")])


def strides_of(levels: Sequence[str]) -> NDArray[np.int64]:
    """(L,) canvas pixels per cell of levels, by the number in their name: P3 has stride 8."""
    return np.array([stride_of(level) for level in levels], np.int64)


def level_of(anchors: Shapes, levels: Sequence[str]) -> NDArray[np.int64]:
    """The level of each anchor: its size is nearest to ``STRIDES_OF_AN_ANCHOR`` times the stride,
    on a logarithmic scale.

    Args:
        anchors: (K, 2) canvas pixels.
        levels: L names that contain the number of the level (P3 has stride 8), in any order.

    Returns:
        (K,) indices into ``levels``.
    """
    in_strides = _sizes(anchors)[:, None] / strides_of(levels)
    return np.asarray(abs(np.log2(in_strides / STRIDES_OF_AN_ANCHOR)).argmin(axis=1))


def by_level(anchors: Shapes, levels: Sequence[str]) -> dict[str, list[list[float]]]:
    """Anchors in the form of a head's config: those of each level by area, in the order of
    ``levels``.

    Args:
        anchors: (K, 2) by area.
        levels: names that contain the number of the level.

    Returns:
        In pixels with two decimals; levels without anchors are left out.
    """
    of_level = level_of(anchors, levels)
    return {
        name: anchors[of_level == i].round(2).tolist()
        for i, name in enumerate(levels)
        if (of_level == i).any()
    }


def measure_on_levels(shapes: Shapes, anchors: Shapes, strides: NDArray[np.int64]) -> AnchorFit:
    """How well anchors fit boxes, counting only anchors whose size fits the stride of their level
    (``FITTING_STRIDES``).

    Args:
        shapes: (N, 2) of the boxes.
        anchors: (K, 2).
        strides: (K,) of the level of each anchor.
    """
    fitting = anchors[fit_their_level(anchors, strides)]
    return (
        measure_anchors(shapes, fitting)
        if len(fitting)
        else AnchorFit(average_iou=0.0, best_possible_recall=0.0)
    )


def crowding(shapes: Shapes, anchors: Shapes) -> tuple[float, int]:
    """How many anchors match one box, and how few of them are enough.

    An anchor matches a box if the ratio of each of their sides is below ``ANSWERS``, in both
    directions.

    Returns:
        The mean number of matching anchors over the boxes; and how many anchors, chosen greedily,
        match all but a hundredth of the
        boxes that all anchors match.
    """
    points = reduced_points(shapes, COARSE)
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
    """(K,) square roots of the areas; an anchor of size 0 counts as a tiny one."""
    return np.asarray(np.sqrt(np.maximum(anchors.prod(axis=1), 1e-6)))
