"""Average precision by the rules of the KITTI object benchmark (Geiger et al. 2012).

The same numbers as the evaluator that goes around with SECOND and MMDetection3D, for all frames at
once: pairs of detections and objects that overlap are few, so they are listed once and every class,
level and threshold is a choice among them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.tasks.lidar.kitti.columns import KittiColumns, KittiFrame, join_kitti
from mtl_ray.tasks.lidar.kitti.levels import (
    COUNTS,
    LEVELS,
    NOT_OF_CLASS,
    OVERLAPS,
    detection_states,
    least_overlaps,
    object_states,
    wanted_names,
)
from mtl_ray.tasks.lidar.kitti.overlaps import (
    AREAS,
    KittiOverlaps,
    dont_care_shares,
    kitti_overlaps,
)
from mtl_ray.tasks.lidar.matching import NOTHING, serial_choice

SAMPLES = 41
"""Recalls at which precision is taken: 0, 1/40, ..., 1."""


EXACT_UP_TO = 100
"""KITTI takes a sample at each found object if there are fewer than 41, and 0 for the samples that
are missing then: with 20 objects the best AP40 is 47.5. Up to this number of objects, precision is
also taken at the true recalls; above it makes hardly a difference.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class KittiTable:
    """The result.

    Attributes:
        classes: the evaluated ones, C of them.
        precision: (C, 3 areas, 3 levels, 2 overlaps, 41) float64, made monotone; see ``AREAS``,
            ``LEVELS``, ``OVERLAPS``. 0 for a class without an object that counts.
        exact: the same as ``precision``, at the true recalls; see ``EXACT_UP_TO``.
        orientation: (C, 3 levels, 2 overlaps, 41), the same weighted by the similarity of the
            observation angles (AOS).
        objects: (C, 3 levels) int64, objects that count.
    """

    classes: tuple[str, ...]
    precision: NDArray[np.float64]
    exact: NDArray[np.float64]
    orientation: NDArray[np.float64]
    objects: NDArray[np.int64]


def sampled_precision(curve: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    """Percent, of (..., 41) precision: the mean of 11 or of 40 samples."""
    taken = curve[..., ::4] if points == 11 else curve[..., 1:]
    return np.asarray(100 * taken.sum(axis=-1) / points, np.float64)


def kitti_table(frames: Sequence[KittiFrame], classes: Sequence[str]) -> KittiTable:
    """The curves of all frames; frames count in the given order.

    Args:
        frames: objects and detections.
        classes: the names to evaluate, in any case.
    """
    gt, found = (
        join_kitti([each.gt for each in frames]),
        join_kitti([each.found for each in frames]),
    )
    pairs = kitti_overlaps(gt, found, wanted_names(classes))
    dont_care = dont_care_shares(gt, found)
    shape = (len(classes), len(AREAS), len(LEVELS), len(OVERLAPS), SAMPLES)
    precision = np.zeros(shape)
    exact = np.zeros(shape)
    orientation = np.zeros((shape[0], *shape[2:]))
    objects = np.zeros(shape[:1] + shape[2:3], np.int64)
    for c, name in enumerate(classes):
        of_class = [object_states(gt, name, level) for level in LEVELS]
        of_found = [detection_states(found, name, level) for level in LEVELS]
        objects[c] = [(states == COUNTS).sum() for states in of_class]
        mine = pairs.take(of_class[0][pairs.gt] != NOT_OF_CLASS)
        for a, area in enumerate(AREAS):
            for k, kind in enumerate(OVERLAPS):
                least = least_overlaps(name, kind)[area]
                over = mine.take(mine.overlap[area] > least)
                for lv in range(len(LEVELS)):
                    if not objects[c, lv]:
                        continue
                    judged = _Judged(
                        pairs=over.take(of_found[lv][over.found] != NOT_OF_CLASS),
                        overlap=area,
                        gt=gt,
                        found=found,
                        truth_states=of_class[lv],
                        found_states=of_found[lv],
                        free=dont_care > least if area == "2D" else np.zeros(len(found), np.bool_),
                    )
                    curves = _curves(judged, int(objects[c, lv]))
                    precision[c, a, lv, k], exact[c, a, lv, k] = curves[:2]
                    if area == "2D":
                        orientation[c, lv, k] = curves[2]
    if len(found) and not (_known(gt.alpha) and _known(found.alpha)):
        orientation[:] = np.nan
    return KittiTable(
        classes=tuple(classes),
        precision=precision,
        exact=exact,
        orientation=orientation,
        objects=objects,
    )


def _known(alpha: NDArray[np.float64]) -> bool:
    """Whether any observation angle is known; -10 stands for none."""
    return bool((np.isfinite(alpha) & (alpha != -10)).any())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Judged:
    """One class, area, level and least overlap.

    Attributes:
        pairs: that overlap enough, of objects and detections that have a state.
        overlap: the area whose overlap decides.
        gt, found: all objects and detections.
        truth_states, found_states: of each of them.
        free: (D,) detections that cost nothing as false ones, for they lie in a DontCare region.
    """

    pairs: KittiOverlaps
    overlap: str
    gt: KittiColumns
    found: KittiColumns
    truth_states: NDArray[np.int64]
    found_states: NDArray[np.int64]
    free: NDArray[np.bool_]


def _curves(
    judged: _Judged, num_objects: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(41,) precision, the same at the true recalls, and orientation similarity."""
    precision, orientation = np.zeros(SAMPLES), np.zeros(SAMPLES)
    scores = _found_scores(judged)
    thresholds = _thresholds(scores, num_objects)
    if not len(thresholds):
        return precision, precision.copy(), orientation
    right, similarity, wrong = _counts(judged, thresholds)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN in the original too
        total = right + wrong
        precision[: len(thresholds)] = _monotone(right / total)
        orientation[: len(thresholds)] = _monotone(similarity / total)
    if num_objects > EXACT_UP_TO:
        return precision, precision, orientation
    right, _, wrong = _counts(judged, np.unique(scores)[::-1])
    reached = np.maximum.accumulate(right / num_objects)
    best = np.append(_monotone(right / np.maximum(right + wrong, 1)), 0.0)
    exact = best[np.searchsorted(reached, np.linspace(0, 1, SAMPLES) - 1e-12)]
    return precision, exact, orientation


def _monotone(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best at this recall or a higher one."""
    return np.asarray(np.maximum.accumulate(values[::-1])[::-1], np.float64)


def _found_scores(judged: _Judged) -> NDArray[np.float64]:
    """Scores of the detections that find an object when each takes the best-scored one."""
    pairs, scores = judged.pairs, judged.found.scores
    order = np.lexsort((pairs.found, -scores[pairs.found], pairs.gt))
    pairs = pairs.take(order)
    chosen = serial_choice(pairs.gt, pairs.found, len(judged.gt), len(judged.found))
    chosen = chosen[chosen != NOTHING]
    counting = (judged.truth_states[pairs.gt[chosen]] == COUNTS) & (
        judged.found_states[pairs.found[chosen]] == COUNTS
    )
    return np.asarray(scores[pairs.found[chosen[counting]]], np.float64)


def _thresholds(scores: NDArray[np.float64], num_objects: int) -> NDArray[np.float64]:
    """The scores, descending, at which recall passes 0, 1/40, ..., 1 most nearly."""
    ranked = np.sort(scores)[::-1].tolist()
    taken: list[float] = []
    recall = 0.0
    for place, score in enumerate(ranked):
        here = (place + 1) / num_objects
        last = place == len(ranked) - 1
        following = here if last else (place + 2) / num_objects
        if following - recall < recall - here and not last:
            continue
        taken.append(score)
        recall += 1 / (SAMPLES - 1.0)
    return np.array(taken[:SAMPLES])


def _counts(
    judged: _Judged, thresholds: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(T,) right detections, their similarity, and wrong detections at each threshold."""
    pairs, place = _matches(judged, thresholds)
    gt, found = judged.gt, judged.found
    valid = judged.found_states[pairs.found] == COUNTS
    right = valid & (judged.truth_states[pairs.gt] == COUNTS)
    apart = gt.alpha[pairs.gt] - found.alpha[pairs.found]
    size = len(thresholds)
    num_right = np.bincount(place[right], minlength=size)
    similar = np.bincount(place[right], (1 + np.cos(apart[right])) / 2, minlength=size).astype(
        np.float64  # of integers if there is none
    )
    costs = (judged.found_states == COUNTS) & ~judged.free
    all_found = np.cumsum(
        np.bincount(_first_reached(found.scores[costs], thresholds), minlength=size + 1)[:size]
    )
    matched = np.bincount(place[costs[pairs.found]], minlength=size)
    return num_right.astype(np.float64), similar, (all_found - matched).astype(np.float64)


def _first_reached(
    scores: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The first of the descending thresholds that each score reaches; their number if none."""
    return np.searchsorted(-thresholds, -scores, side="left")


def _matches(
    judged: _Judged, thresholds: NDArray[np.float64]
) -> tuple[KittiOverlaps, NDArray[np.int64]]:
    """The pairs that match at each threshold, and the place of the threshold.

    Of the detections that reach the threshold, each object takes the free one that overlaps most,
    a too low one only if there is no other.
    """
    pairs = judged.pairs
    low = judged.found_states[pairs.found] != COUNTS
    overlap = np.where(low, 0.0, pairs.overlap[judged.overlap])
    pairs = pairs.take(np.lexsort((pairs.found, -overlap, low, pairs.gt)))
    first = _first_reached(judged.found.scores[pairs.found], thresholds)
    size, num_truth, num_found = len(thresholds), len(judged.gt), len(judged.found)
    alone = (np.bincount(pairs.gt, minlength=num_truth)[pairs.gt] == 1) & (
        np.bincount(pairs.found, minlength=num_found)[pairs.found] == 1
    )
    which, place = _from_first(np.flatnonzero(alone), first, size)
    disputed, at = _from_first(np.flatnonzero(~alone), first, size)
    order = np.argsort(at, kind="stable")
    disputed, at = disputed[order], at[order]
    # Small numbers for the objects and detections in dispute, one set for each threshold.
    _, choosers = np.unique(pairs.gt[disputed], return_inverse=True)
    _, items = np.unique(pairs.found[disputed], return_inverse=True)
    num_choosers = int(choosers.max(initial=-1)) + 1
    num_items = int(items.max(initial=-1)) + 1
    chosen = serial_choice(
        at * num_choosers + choosers, at * num_items + items, size * num_choosers, size * num_items
    )
    chosen = chosen[chosen != NOTHING]
    return pairs.take(np.concatenate([which, disputed[chosen]])), np.concatenate(
        [place, at[chosen]]
    )


def _from_first(
    which: NDArray[np.int64], first: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each of some pairs once for every threshold that its score reaches, and that threshold."""
    counts = size - first[which]
    repeated = np.repeat(which, counts)
    ends = np.cumsum(counts)
    within = np.arange(len(repeated)) - np.repeat(ends - counts, counts)
    return repeated, first[repeated] + within
