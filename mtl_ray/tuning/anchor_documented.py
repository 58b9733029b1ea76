"""Anchors by the documented rules of MMDetection's optimize_anchors, for comparison with older
results.

They differ from ``anchors``: k-means starts once, from random boxes, and gives an anchor without
boxes the size 0. Differential evolution starts anywhere on the canvas.
"""

import numpy as np
from numpy.typing import NDArray

from mtl_ray.tuning.anchor_points import BoxShapes, Shapes, reduced_points
from mtl_ray.tuning.anchors import COARSE, by_area

ITERATIONS = 1000


def documented_kmeans(
    shapes: Shapes, num: int, *, seed: int = 0, rounds: int = ITERATIONS
) -> Shapes:
    """k-means from ``num`` boxes drawn with replacement.

    A box belongs to the anchor with the largest overlap (the first of equals). Before the first
    round all boxes belong to the first anchor. The search ends with the round in which nothing
    changes.

    Args:
        shapes: (N, 2) of the boxes.
        num: number of anchors; a single anchor is the mean box.
        seed: of the draw.
        rounds: most rounds.

    Returns:
        (num, 2) by area; 0, 0 for an anchor without boxes.
    """
    if num == 1:
        return np.asarray(shapes.mean(axis=0, keepdims=True))
    points = BoxShapes(shapes, np.ones(len(shapes)))
    anchors = shapes[np.random.default_rng(seed).integers(len(shapes), size=num)]
    nearest = np.zeros(len(shapes), np.int64)
    for _ in range(rounds):
        before, nearest = nearest, points.overlaps(anchors).argmax(axis=0)
        if (before == nearest).all():
            break
        counts = np.bincount(nearest, minlength=num)
        sums = np.stack(
            [np.bincount(nearest, side, minlength=num) for side in (points.width, points.height)],
            axis=1,
        )
        anchors = sums / np.maximum(counts, 1)[:, None]
    return by_area(anchors)


def documented_evolution(
    shapes: Shapes,
    num: int,
    canvas: tuple[int, int],
    *,
    seed: int = 0,
    rounds: int = ITERATIONS,
    cells: int = COARSE,
) -> Shapes:
    """Differential evolution of the mean overlap with the documented settings, on a histogram of
    the shapes.

    Strategy best1bin, 15 members for each of 2 ``num`` numbers, mutation between 0.5 and 1,
    recombination 0.7, tolerance 1e-4, and a final L-BFGS-B.

    Args:
        shapes: (N, 2) of the boxes.
        num: number of anchors.
        canvas: width and height, the bounds.
        seed: of the evolution.
        rounds: most generations.
        cells: of the histogram along each side.

    Returns:
        (num, 2) by area.
    """
    from scipy.optimize import differential_evolution  # see ``anchors.evolve``

    points = reduced_points(shapes, cells)

    def cost(flat: NDArray[np.float64]) -> float:
        return 1.0 - points.average(flat.reshape(-1, 2))

    found = differential_evolution(
        cost,
        [(0, canvas[0]), (0, canvas[1])] * num,
        strategy="best1bin",
        maxiter=rounds,
        popsize=15,
        tol=1e-4,
        rng=seed,
    )
    return by_area(np.asarray(found.x).reshape(-1, 2))
