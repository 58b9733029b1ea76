"""The difference between the objects of two predictions of one cloud: matched one to one, then
compared.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mtl_ray.geometry.boxes_3d import wrap_angle
from mtl_ray.tasks.difference import Comparison, Difference, Fields, field_faults, fields_of
from mtl_ray.tasks.lidar.decode import Detections3d

PER_OBJECT = ("boxes", "scores", "classes", "velocity")
NEEDED = ("boxes", "scores")
MATCH_M = 0.5
"""Most metres between the centres of two boxes of one class that count as the same."""
MATCH_TURN = 1.0
"""Most radians between their headings: anchors of one place predict both directions."""
SAME = 1e-3
"""Metres and radians between boxes of one row that are the same at once."""
CUT = 1e-6
"""Difference of two scores that are equal but for rounding."""
REACH = 1e6
"""Numbers are compared up to this size: a network without training predicts sizes without bound."""


def prediction_difference(first: Detections3d, second: Detections3d, how: Comparison) -> Difference:
    """The difference of two predictions; objects without a partner are reported if their score
    reaches the threshold. Positions are in metres, angles (in radians) compared modulo a turn.
    """
    fields = fields_of(first), fields_of(second)
    scores = first.scores, second.scores
    may_be_cut = how.cut and len(scores[0]) == len(scores[1]) > 0
    cut = min(float(each.min()) for each in scores) + CUT if may_be_cut else -1.0
    apart, partners = _objects_difference(*fields, how, cut)
    if apart.incomparable:
        return apart
    alone: list[str] = []
    for prediction, matched, side in zip((first, second), partners, how.sides, strict=True):
        reported = np.flatnonzero(prediction.scores >= how.score_threshold)
        for index in np.setdiff1d(reported, matched):
            box = ", ".join(f"{value:.2f}" for value in prediction.boxes[index])
            alone.append(
                f"only {side} has class {prediction.classes[index]} with score "
                f"{prediction.scores[index]:.3f} at {box}"
            )
    return replace(apart, alone=tuple(alone))


def array_difference(first: Fields, second: Fields, how: Comparison) -> Difference:
    """The difference of network outputs: candidates, K of them, of which the best were kept.

    Candidates are matched like objects. Those that the two kept differently, with the lowest score
    of all, do not count.
    """
    faults = field_faults(first, second, PER_OBJECT, how.sides)
    if faults or any(name not in first for name in NEEDED):
        missing = tuple(f"neither has {name!r}" for name in NEEDED if name not in first)
        return Difference(unit="boxes", length_unit="m", incomparable=faults + missing)
    best = [_best(side) for side in (first, second)]
    cut = max((float(side.min(initial=np.inf)) for side in best if len(side)), default=-1.0) + CUT
    return _objects_difference(first, second, how, cut)[0]


def _best(side: Fields) -> NDArray[Any]:
    """(K,) scores of the best class."""
    scores = side["scores"]
    return scores if scores.ndim == 1 else scores.max(axis=1, initial=-np.inf)


def _labels(side: Fields) -> NDArray[np.int64]:
    """(K,) classes; all the same of candidates with a score of each class."""
    count = len(side["boxes"])
    return np.asarray(side.get("classes", np.zeros(count)), np.int64)


def _objects_difference(
    first: Fields, second: Fields, how: Comparison, cut: float
) -> tuple[Difference, tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """If there are pairs, objects without a partner whose score is at most ``cut`` do not count.
    Also returns the indices of the pairs.
    """
    none = np.empty(0, np.intp), np.empty(0, np.intp)
    problems = field_faults(first, second, PER_OBJECT, how.sides, PER_OBJECT)
    if problems:
        return Difference(unit="boxes", length_unit="m", incomparable=problems), none
    ours, theirs = _pairs(first, second)
    if not len(ours):
        cut = -1.0  # without a pair nothing shows that the rest of the lists is the same
    alone = sum(
        int((~(np.delete(_best(side), matched) <= cut)).sum())
        for side, matched in ((first, ours), (second, theirs))
    )
    apart = Difference(unit="boxes", length_unit="m", compared=len(ours)).with_agreeing(
        2 * len(ours), 2 * len(ours) + alone
    )
    one = first["boxes"][ours].astype(np.float64)
    other = second["boxes"][theirs].astype(np.float64)
    other[:, 6] = one[:, 6] + wrap_angle(other[:, 6] - one[:, 6])
    apart = apart.with_positions(one, other, REACH).with_scores(
        first["scores"][ours], second["scores"][theirs]
    )
    if "velocity" in first and "velocity" in second:
        apart = apart.with_positions(first["velocity"][ours], second["velocity"][theirs], REACH)
    return apart, (ours, theirs)


def _pairs(first: Fields, second: Fields) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Boxes of one class near each other, one to one."""
    one, other = (side["boxes"].astype(np.float64) for side in (first, second))
    if np.isnan(one).any() or np.isnan(other).any():
        # a NaN matches its own row, so that the figures show it
        count = min(len(one), len(other))
        return np.arange(count), np.arange(count)
    ours, theirs = _same_rows(first, second, one, other)
    rest = [np.setdiff1d(np.arange(len(each)), ours) for each in (one, other)]
    left = [
        {name: values[rows] for name, values in side.items()}
        for side, rows in zip((first, second), rest, strict=True)
    ]
    more = _nearest(left[0], left[1], one[rest[0]], other[rest[1]])
    return np.concatenate([ours, rest[0][more[0]]]), np.concatenate([theirs, rest[1][more[1]]])


def _same_rows(
    first: Fields, second: Fields, one: NDArray[np.float64], other: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows whose boxes are all but equal: nearly all of two networks that agree."""
    count = min(len(one), len(other))
    same = (np.abs(one[:count] - other[:count]) <= SAME).all(axis=1)
    same &= _labels(first)[:count] == _labels(second)[:count]
    rows = np.flatnonzero(same)
    return rows, rows


def _nearest(
    first: Fields, second: Fields, one: NDArray[np.float64], other: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs with the smallest sum of distances and differences of score."""
    apart = np.sqrt(((one[:, None, :3] - other[None, :, :3]) ** 2).sum(axis=-1))
    turn = np.abs(wrap_angle(one[:, None, 6] - other[None, :, 6]))
    kinds = _labels(first)[:, None] == _labels(second)[None]
    fits = kinds & (apart <= MATCH_M) & (turn <= MATCH_TURN)
    scores = np.abs(_best(first).astype(np.float64)[:, None] - _best(second)[None])
    cost = np.where(fits, apart + turn + scores, 1e3)
    ours, theirs = linear_sum_assignment(cost)
    near = fits[ours, theirs]
    return ours[near], theirs[near]
