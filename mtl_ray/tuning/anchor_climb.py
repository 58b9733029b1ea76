"""Improves anchors: along the gradient of the mean overlap, and by small steps in all
directions.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from mtl_ray.tuning.anchor_points import BoxShapes, Shapes

_MEMORY = 10
_FARTHEST = 0.5
"""Largest change of the logarithm of a side in one round."""
_FIRST = 0.1
"""Change of the logarithm of a side in the first round."""
_HALVINGS = 12
_LEAST_GAIN = 1e-9
_DIRECTIONS = np.array(
    [[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1], [1, -1], [-1, 1]], np.float64
)
Vector = NDArray[np.float64]
LastMoves = deque[tuple[Vector, Vector]]
"""The last moves, and the change of the gradient with each."""


def climb_anchors(points: BoxShapes, anchors: Shapes, rounds: int) -> Shapes:
    """Increases the mean overlap by L-BFGS on the logarithms of the sides, which stay in the range
    of the boxes.

    Nocedal and Wright 2006, Numerical Optimization, algorithm 7.4, with a step that is halved until
    the value improves. SciPy has the algorithm too, but its import takes as long as all climbs of a
    search together.

    Args:
        points: the boxes.
        anchors: (K, 2), the start.
        rounds: most rounds.

    Returns:
        (K, 2).
    """
    limits = np.log(
        [[side.min(), side.max()] for side in (points.width, points.height)] * len(anchors)
    ).T
    place = np.clip(np.log(anchors).ravel(), *limits)
    value, gradient = points.descent(place)
    pairs: LastMoves = deque(maxlen=_MEMORY)
    for _ in range(rounds):
        direction = -_curved(gradient, pairs)
        longest = max(float(abs(direction).max()), 1e-300)
        direction *= min(1.0, _FARTHEST / longest) if pairs else _FIRST / longest
        slope, step = float(direction @ gradient), 1.0
        for _ in range(_HALVINGS):
            moved = np.clip(place + step * direction, *limits)
            new_value, new_gradient = points.descent(moved)
            if new_value <= value + 1e-4 * step * slope:
                break
            step /= 2
        gain = value - new_value
        if not gain > _LEAST_GAIN:
            break
        move, change = moved - place, new_gradient - gradient
        if move @ change > 1e-12:
            pairs.append((move, change))
        place, value, gradient = moved, new_value, new_gradient
    return np.asarray(np.exp(place.reshape(-1, 2)))


def _curved(gradient: Vector, pairs: LastMoves) -> Vector:
    """The gradient times an estimate of the inverse Hessian (two-loop recursion)."""
    found, shares = gradient.copy(), []
    for move, change in reversed(pairs):
        shares.append(float(move @ found) / float(move @ change))
        found -= shares[-1] * change
    if pairs:
        move, change = pairs[-1]
        found *= float(move @ change) / float(change @ change)
    for (move, change), share in zip(pairs, reversed(shares), strict=True):
        found += (share - float(change @ found) / float(move @ change)) * move
    return found


def refine_by_steps(points: BoxShapes, anchors: Shapes) -> Shapes:
    """Moves one anchor at a time by smaller and smaller steps.

    Maxima lie at kinks, where the gradient does not lead further.
    """
    logs, value, step = np.log(anchors), points.average(anchors), 0.1
    while step > 1e-4:
        before = value
        for index in range(len(logs)):
            rest = np.delete(np.exp(logs), index, axis=0)
            others = points.overlaps(rest).max(axis=0) if len(rest) else np.zeros(len(points))
            candidates = logs[index] + step * _DIRECTIONS
            values = np.maximum(points.overlaps(np.exp(candidates)), others) @ points.weights
            if values.max() > value + 1e-12:
                value, logs[index] = float(values.max()), candidates[values.argmax()]
        if value == before:
            step /= 2
    return np.exp(logs)
