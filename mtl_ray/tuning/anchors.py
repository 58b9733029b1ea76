"""Anchors that fit the boxes of a data set: k-means over box shapes, and differential evolution of their mean overlap.

Boxes and anchors are (width, height) in canvas pixels; the overlap of two is that of boxes with a common centre.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import differential_evolution

from mtl_ray.geometry.placement import PlacementRule, placement_of
from mtl_ray.shards.split import open_split

Shapes = NDArray[np.float64]
"""(N, 2): width, height."""
CHUNK = 65536
SAMPLE = 20_000
"""So many boxes are looked at while anchors move; what is said of them in the end is measured on all."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How well anchors suit boxes.

    Attributes:
        average_iou: mean over the boxes of their overlap with the nearest anchor.
        best_possible_recall: share of the boxes of which some anchor is at most 4 times as wide and as high, and at least a quarter.
    """

    average_iou: float
    best_possible_recall: float


def shapes_of(uris: Iterable[str], rule: PlacementRule) -> Shapes:
    """The boxes of splits as they lie on the canvas, crowds and what is cut off left out; no image is read.

    Raises:
        ValueError: if there is no box.
    """
    found = [np.zeros((0, 2))]
    for uri in uris:
        for height, width, objects in open_split(uri).scan_objects():
            if objects is not None and len(objects):
                placement = placement_of(height, width, rule)
                boxes = placement.boxes_to_canvas(objects.boxes_xyxy[~objects.crowd])
                limit = np.array([placement.valid_width, placement.valid_height] * 2, np.float32)
                boxes = np.clip(boxes, 0, limit)
                found.append((boxes[:, 2:] - boxes[:, :2]).astype(np.float64))
    shapes = np.concatenate(found)
    shapes = shapes[(shapes > 0).all(axis=1)]
    if not len(shapes):
        raise ValueError(f"{', '.join(uris)}: there are no boxes that anchors could be fitted to")
    return shapes


def overlaps(shapes: Shapes, anchors: Shapes) -> NDArray[np.float64]:
    """(N, K) intersection over union of N boxes and K anchors."""
    inter = np.minimum(shapes[:, None, 0], anchors[None, :, 0]) * np.minimum(shapes[:, None, 1], anchors[None, :, 1])
    union = shapes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - inter
    return np.asarray(inter / union)


def measure(shapes: Shapes, anchors: Shapes) -> Fit:
    """How well anchors suit all boxes."""
    overlap, recalled = 0.0, 0
    for start in range(0, len(shapes), CHUNK):
        part = shapes[start : start + CHUNK]
        overlap += float(overlaps(part, anchors).max(axis=1).sum())
        ratio = part[:, None] / anchors[None]
        recalled += int((np.maximum(ratio, 1 / ratio).max(axis=2).min(axis=1) <= 4.0).sum())
    return Fit(average_iou=overlap / len(shapes), best_possible_recall=recalled / len(shapes))


def kmeans(shapes: Shapes, num: int, *, seed: int = 0, restarts: int = 20, rounds: int = 300) -> Shapes:
    """Anchors by k-means with 1 - IoU as distance (Redmon and Farhadi 2017, YOLO9000, section 2), the best of some k-means++ starts.

    Args:
        shapes: of the boxes.
        num: of anchors.
        seed: of the starts.
        restarts: how many.
        rounds: at most, of each.

    Returns:
        (num, 2) by area.
    """
    rng = np.random.default_rng(seed)
    some = _some(shapes, rng)
    found = [_lloyd(some, _spread(some, num, rng), rounds) for _ in range(restarts)]
    return _by_area(max(found, key=lambda anchors: measure(some, anchors).average_iou))


def _some(shapes: Shapes, rng: np.random.Generator) -> Shapes:
    return shapes if len(shapes) <= SAMPLE else shapes[rng.choice(len(shapes), SAMPLE, replace=False)]


def _spread(shapes: Shapes, num: int, rng: np.random.Generator) -> Shapes:
    """Boxes far from each other to start with (k-means++; Arthur and Vassilvitskii 2007)."""
    chosen = shapes[rng.integers(len(shapes))][None]
    while len(chosen) < num:
        distance = (1 - overlaps(shapes, chosen).max(axis=1)) ** 2
        total = distance.sum()
        place = rng.choice(len(shapes), p=distance / total) if total > 0 else rng.integers(len(shapes))
        chosen = np.concatenate([chosen, shapes[place][None]])
    return np.asarray(chosen)


def _lloyd(shapes: Shapes, anchors: Shapes, rounds: int) -> Shapes:
    """Assigns and averages until nothing changes; an anchor without boxes stays where it is."""
    nearest = np.full(len(shapes), -1)
    for _ in range(rounds):
        before, nearest = nearest, overlaps(shapes, anchors).argmax(axis=1)
        if (before == nearest).all():
            break
        counts = np.bincount(nearest, minlength=len(anchors))
        sums = np.stack([np.bincount(nearest, shapes[:, side], minlength=len(anchors)) for side in (0, 1)], axis=1)
        anchors = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], anchors)
    return np.asarray(anchors)


def evolve(shapes: Shapes, num: int, *, seed: int = 0, rounds: int = 200) -> Shapes:
    """Anchors by differential evolution (Storn and Price 1997) of the mean overlap, k-means in the first generation.

    Returns:
        (num, 2) by area.
    """
    rng = np.random.default_rng(seed)
    start, some = kmeans(shapes, num, seed=seed), _some(shapes, rng)
    bounds = [(float(some[:, side].min()), float(some[:, side].max()) + 1e-6) for _ in range(num) for side in (0, 1)]

    def cost(flat: NDArray[np.float64]) -> float:
        return 1.0 - float(overlaps(some, flat.reshape(-1, 2)).max(axis=1).mean())

    x0 = np.clip(start.ravel(), *np.array(bounds).T)
    found = differential_evolution(cost, bounds, x0=x0, rng=rng, maxiter=rounds, tol=1e-4, popsize=4, polish=False)
    return _by_area(np.asarray(found.x).reshape(-1, 2))


def _by_area(anchors: Shapes) -> Shapes:
    return np.asarray(anchors[np.argsort(anchors.prod(axis=1), kind="stable")])


def by_level(anchors: Shapes, levels: Sequence[str]) -> list[list[list[float]]]:
    """Anchors as a head's config lists them: the smallest on the level of the smallest stride, in the order of ``levels``.

    Args:
        anchors: (L * K, 2) by area.
        levels: names that end with the number of the level (P3 has stride 8).

    Returns:
        For each level its K anchors, in pixels with one decimal.
    """
    per_level = len(anchors) // len(levels)
    by_stride = sorted(levels, key=lambda name: int(name.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")))
    groups = {name: anchors[i * per_level : (i + 1) * per_level].round(1).tolist() for i, name in enumerate(by_stride)}
    return [groups[name] for name in levels]
