"""The nuScenes detection metric (Caesar et al. 2020, configuration ``detection_cvpr_2019``).

The same numbers as the development kit of the dataset, for all samples at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.tasks.lidar.matching import NOTHING, same_frame_pairs, serial_choice
from mtl_ray.tasks.lidar.nuscenes.columns import NuscenesColumns, NuscenesFrame, join_nuscenes

DISTANCES = (0.5, 1.0, 2.0, 4.0)
"""Metres between the centres, from above, within which a detection is right."""
ERROR_DISTANCE = 2
"""The place in ``DISTANCES`` at which errors of right detections are measured."""
RECALLS = np.linspace(0, 1, 101)
FIRST = 11
"""The place in ``RECALLS`` from which precision and errors count: recall 0.1 does not."""
LEAST_PRECISION = 0.1
MAP_WEIGHT = 5
ERRORS = ("ATE", "ASE", "AOE", "AVE", "AAE")
"""Of translation (m), scale (1 - IoU), orientation (rad), velocity (m/s), attribute (1 - share)."""
WITHOUT: Mapping[str, tuple[str, ...]] = {
    "traffic_cone": ("AOE", "AVE", "AAE"),
    "barrier": ("AVE", "AAE"),
}
"""Errors that a class does not have."""
CHUNK = 2_000_000
"""Pairs looked at together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NuscenesTable:
    """The result.

    Attributes:
        classes: C of them.
        precision: (C, 4, 101) float64 by distance and recall; 0 where there is no object.
        errors: (C, 5) float64, see ``ERRORS``; 1 where too little was found, NaN where the class
            has none.
        objects: (C,) int64, objects that count.
    """

    classes: tuple[str, ...]
    precision: NDArray[np.float64]
    errors: NDArray[np.float64]
    objects: NDArray[np.int64]

    @property
    def average_precision(self) -> NDArray[np.float64]:
        """(C, 4) in [0, 1]."""
        above = (self.precision[..., FIRST:] - LEAST_PRECISION).clip(0)
        return np.asarray(above.mean(axis=-1) / (1 - LEAST_PRECISION), np.float64)

    def with_objects(self) -> "NuscenesTable":
        """The table of the classes that have an object."""
        which = self.objects > 0
        return NuscenesTable(
            classes=tuple(np.array(self.classes, np.object_)[which].tolist()),
            precision=self.precision[which],
            errors=self.errors[which],
            objects=self.objects[which],
        )

    @property
    def mean_ap(self) -> float:
        """Over classes and distances."""
        return float(self.average_precision.mean()) if self.classes else float("nan")

    @property
    def mean_errors(self) -> dict[str, float]:
        """By name of the error, over the classes that have it; NaN if none has."""
        return {
            name: float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
            for name, values in zip(ERRORS, self.errors.T, strict=True)
        }

    @property
    def score(self) -> float:
        """NDS: the mean of mAP, five times, and what is left of 1 after each error."""
        rest = [max(0.0, 1 - error) for error in self.mean_errors.values() if error == error]
        return float((MAP_WEIGHT * self.mean_ap + sum(rest)) / (MAP_WEIGHT + len(ERRORS)))


def nuscenes_table(frames: Sequence[NuscenesFrame], classes: Sequence[str]) -> NuscenesTable:
    """The table of all samples; of equal scores the later detection comes first."""
    gt = join_nuscenes([each.gt for each in frames])
    gt = gt.take(gt.state == 0)
    found = join_nuscenes([each.found for each in frames])
    found = found.take(found.state == 0)
    precision = np.zeros((len(classes), len(DISTANCES), len(RECALLS)))
    errors = np.ones((len(classes), len(ERRORS)))
    for c, name in enumerate(classes):
        mine, theirs = gt.take(gt.classes == c), found.take(found.classes == c)
        precision[c], errors[c] = _of_class(name.lower(), mine, theirs)
    counts = np.bincount(gt.classes, minlength=len(classes))
    return NuscenesTable(classes=tuple(classes), precision=precision, errors=errors, objects=counts)


def _of_class(
    name: str, gt: NuscenesColumns, found: NuscenesColumns
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(4, 101) precision and (5,) errors."""
    precision = np.zeros((len(DISTANCES), len(RECALLS)))
    errors = np.ones(len(ERRORS))
    order = np.lexsort((np.arange(len(found)), found.scores))[::-1]  # best first
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    one, other, apart = _near_pairs(gt, found)
    by_turn = np.lexsort((other, apart, rank[one]))
    one, other, apart = one[by_turn], other[by_turn], apart[by_turn]
    for place, limit in enumerate(DISTANCES):
        near = apart < limit
        pair = serial_choice(rank[one[near]], other[near], len(found), len(gt))
        hit = pair != NOTHING  # by rank
        if not hit.any():
            continue
        right = np.cumsum(hit)
        recall = right / len(gt)
        precision[place] = np.interp(RECALLS, recall, right / np.arange(1, len(found) + 1), right=0)
        if place == ERROR_DISTANCE:
            scores = found.scores[order]
            confidence = np.interp(RECALLS, recall, scores, right=0)
            matched = gt.take(other[near][pair[hit]])
            made = _errors(name, matched, found.take(order[hit]))
            errors = np.array([_mean_error(each, scores[hit], confidence) for each in made])
    missing = [ERRORS.index(each) for each in WITHOUT.get(name, ())]
    errors[missing] = np.nan
    return precision, errors


def _near_pairs(
    gt: NuscenesColumns, found: NuscenesColumns
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Detections, objects and metres between them, of the pairs in one sample that are near."""
    per_frame = np.bincount(
        gt.frames,
        minlength=int(max(gt.frames.max(initial=-1), found.frames.max(initial=-1))) + 1,
    )
    ends = np.cumsum(per_frame[found.frames])
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.searchsorted(ends, np.arange(0, total, CHUNK), side="right")
    parts = []
    for part in np.split(np.arange(len(found)), cuts[1:]):
        one, other = same_frame_pairs(found.frames[part], gt.frames)
        between = found.centres[part[one], :2] - gt.centres[other, :2]
        apart = np.sqrt((between**2).sum(axis=1))
        near = apart < DISTANCES[-1]
        parts.append((part[one[near]], other[near], apart[near]))
    one, other, apart = (np.concatenate(column) for column in zip(*parts, strict=True))
    return one, other, apart


def _errors(name: str, gt: NuscenesColumns, found: NuscenesColumns) -> list[NDArray[np.float64]]:
    """Each error of M right detections, (M,); NaN where it is not known."""
    between = found.centres[:, :2] - gt.centres[:, :2]
    smaller = np.minimum(gt.sizes, found.sizes).prod(axis=1)
    union = gt.sizes.prod(axis=1) + found.sizes.prod(axis=1) - smaller
    period = np.pi if name == "barrier" else 2 * np.pi  # a barrier has no front
    turn = (gt.yaw - found.yaw + period / 2) % period - period / 2
    speed = found.velocity - gt.velocity
    wrong = (gt.attributes != found.attributes).astype(np.float64)
    return [
        np.sqrt((between**2).sum(axis=1)),
        1 - smaller / union,
        np.abs(turn),
        np.sqrt((speed**2).sum(axis=1)),
        np.where(gt.attributes == "", np.nan, wrong),
    ]


def _mean_error(
    errors: NDArray[np.float64], scores: NDArray[np.float64], confidence: NDArray[np.float64]
) -> float:
    """The mean over the recalls from 0.1 to the highest one reached, of the mean so far.

    Args:
        errors: (M,) of the right detections, best first.
        scores: (M,) of them.
        confidence: (101,) score at each recall, 0 where it is not reached.
    """
    reached = np.flatnonzero(confidence)
    last = int(reached[-1]) if len(reached) else 0
    if last < FIRST:
        return 1.0
    known = ~np.isnan(errors)
    if known.any():
        sums, counts = np.nancumsum(errors), np.cumsum(known)
        so_far = np.divide(sums, counts, out=np.zeros_like(sums), where=counts != 0)
    else:
        so_far = np.ones(len(errors))
    at = np.interp(confidence[::-1], scores[::-1], so_far[::-1])[::-1]
    return float(np.mean(at[FIRST : last + 1]))
