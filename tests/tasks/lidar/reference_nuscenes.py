"""The rules of the nuScenes metric one after another, detection by detection."""

import math
from collections.abc import Sequence

import numpy as np

from mtl_ray.tasks.lidar.nuscenes.columns import NuscenesColumns, NuscenesFrame

NONE = {"traffic_cone": (2, 3, 4), "barrier": (3, 4)}


def reference_class(
    frames: Sequence[NuscenesFrame], c: int, name: str
) -> tuple[list[float], list[float]]:
    """AP at the four distances, and the five errors."""
    precisions = []
    errors = [1.0] * 5
    for limit in (0.5, 1.0, 2.0, 4.0):
        ap, at_limit = _at(frames, c, name, limit)
        precisions.append(ap)
        if limit == 2.0:
            errors = at_limit
    return precisions, [math.nan if e in NONE.get(name, ()) else errors[e] for e in range(5)]


def _at(
    frames: Sequence[NuscenesFrame], c: int, name: str, limit: float
) -> tuple[float, list[float]]:
    objects = sum(int(((f.gt.classes == c) & (f.gt.state == 0)).sum()) for f in frames)
    found = [
        (float(frame.found.scores[d]), number, d)
        for number, frame in enumerate(frames)
        for d in range(len(frame.found))
        if frame.found.classes[d] == c and frame.found.state[d] == 0
    ]
    order = sorted((score, place) for place, (score, _, _) in enumerate(found))[::-1]
    taken: set[tuple[int, int]] = set()
    hits: list[int] = []
    made: list[list[float]] = []
    scores: list[float] = []
    for score, place in order:
        number, d = found[place][1:]
        gt, other = frames[number].gt, frames[number].found
        best, nearest = -1, math.inf
        for g in range(len(gt)):
            if gt.classes[g] == c and gt.state[g] == 0 and (number, g) not in taken:
                apart = math.dist(gt.centres[g, :2], other.centres[d, :2])
                if apart < nearest:
                    best, nearest = g, apart
        hits.append(int(nearest < limit))
        if hits[-1]:
            taken.add((number, best))
            made.append(_errors(gt, best, other, d, name))
            scores.append(score)
    if not made:
        return 0.0, [1.0] * 5
    right = np.cumsum(hits)
    recall = right / objects
    grid = np.linspace(0, 1, 101)
    precision = np.interp(grid, recall, right / np.arange(1, len(hits) + 1), right=0)
    confidence = np.interp(grid, recall, [score for score, _ in order], right=0)
    ap = float((precision[11:] - 0.1).clip(0).mean() / 0.9)
    last = max((place for place in range(101) if confidence[place] > 0), default=0)
    if last < 11:
        return ap, [1.0] * 5
    errors = []
    for e in range(5):
        means = _running_means([row[e] for row in made])
        at = np.interp(confidence[::-1], scores[::-1], means[::-1])[::-1]
        errors.append(float(at[11 : last + 1].mean()))
    return ap, errors


def _running_means(values: Sequence[float]) -> list[float]:
    if all(map(math.isnan, values)):
        return [1.0] * len(values)
    total, count, means = 0.0, 0, []
    for value in values:
        if not math.isnan(value):
            total, count = total + value, count + 1
        means.append(total / count if count else 0.0)
    return means


def _errors(gt: NuscenesColumns, g: int, found: NuscenesColumns, d: int, name: str) -> list[float]:
    smaller = math.prod(map(min, gt.sizes[g], found.sizes[d]))
    union = math.prod(gt.sizes[g]) + math.prod(found.sizes[d]) - smaller
    period = math.pi if name == "barrier" else 2 * math.pi
    turn = (gt.yaw[g] - found.yaw[d] + period / 2) % period - period / 2
    known = str(gt.attributes[g])
    return [
        math.dist(gt.centres[g, :2], found.centres[d, :2]),
        1 - smaller / union,
        abs(turn),
        math.dist(gt.velocity[g], found.velocity[d]),
        float(known != str(found.attributes[d])) if known else math.nan,
    ]
