"""The confusion matrix of objects in point clouds: matched one to one from above, those of the same
class first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.rotated_iou import paired_intersections
from mtl_ray.tasks.charts import BACKGROUND, Confusion
from mtl_ray.tasks.lidar.matching import NOTHING, same_frame_pairs, serial_choice
from mtl_ray.tasks.lidar.nuscenes.columns import NuscenesColumns, NuscenesFrame, join_nuscenes

MIN_SCORE = 0.3
"""Detections with a lower score are left out, as in drawings."""


@dataclass(frozen=True, kw_only=True)
class ConfusionRule:
    """What a detection and its object must share.

    Attributes:
        overlap: least intersection over union from above.
        metres: most metres between the centres from above; then the overlap decides nothing.
    """

    overlap: float = 0.5
    metres: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.overlap <= 1:
            raise ValueError(f"the IoU threshold is {self.overlap:g}; it must be in (0, 1]")
        if self.metres is not None and not self.metres > 0:
            raise ValueError(f"the distance is {self.metres:g} m; it must be above 0")

    @property
    def text(self) -> str:
        """For the title of a figure."""
        return f"IoU {self.overlap:g} from above" if self.metres is None else f"{self.metres:g} m"


def near_pairs(
    gt: NuscenesColumns, found: NuscenesColumns, rule: ConfusionRule
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Detections, objects, and how well they fit (more is better), of the pairs in one frame that
    match.
    """
    one, other = same_frame_pairs(found.frames, gt.frames)
    between = found.centres[one, :2] - gt.centres[other, :2]
    apart = np.sqrt((between**2).sum(axis=1))
    if rule.metres is not None:
        near = apart < rule.metres
        return one[near], other[near], -apart[near]
    radius = [np.hypot(each.sizes[:, 0], each.sizes[:, 1]) / 2 for each in (found, gt)]
    near = apart < radius[0][one] + radius[1][other]
    one, other = one[near], other[near]
    common = paired_intersections(_boxes(found)[one], _boxes(gt)[other])
    areas = [each.sizes[:, 0] * each.sizes[:, 1] for each in (found, gt)]
    overlap = common / np.maximum(areas[0][one] + areas[1][other] - common, 1e-12)
    fits = overlap >= rule.overlap
    return one[fits], other[fits], overlap[fits]


def _boxes(of: NuscenesColumns) -> NDArray[np.float64]:
    return np.column_stack([of.centres, of.sizes, of.yaw])


def object_confusion(
    frames: Sequence[NuscenesFrame],
    names: tuple[str, ...],
    *,
    min_score: float = MIN_SCORE,
    rule: ConfusionRule,
) -> Confusion:
    """Counts objects by annotated and predicted class; the last row and column are the background.

    Detections, best first, take the free object of their class that fits best, the remaining ones
    then one of any class. Objects that are too far away, without points or in racks are left out,
    with the detections on them.

    Args:
        frames: ground truth and detections.
        names: of the classes.
        min_score: of the detections that count.
        rule: what matches.
    """
    gt = join_nuscenes([each.gt for each in frames])
    found = join_nuscenes([each.found for each in frames])
    found = found.take((found.scores >= min_score) & (found.state == 0))
    detection, place, fit = near_pairs(gt, found, rule)
    rank = np.empty(len(found), np.int64)
    rank[np.argsort(-found.scores, kind="stable")] = np.arange(len(found))
    same = found.classes[detection] == gt.classes[place]
    chosen = np.full(len(found), NOTHING, np.int64)
    for eligible in (same, ~same):
        free = np.ones(len(gt), np.bool_)
        free[chosen[chosen != NOTHING]] = False
        pairs = np.flatnonzero(eligible & free[place] & (chosen[detection] == NOTHING))
        pairs = pairs[np.lexsort((place[pairs], -fit[pairs], rank[detection[pairs]]))]
        got = serial_choice(rank[detection[pairs]], place[pairs], len(found), len(gt))
        got = pairs[got[got != NOTHING]]
        chosen[detection[got]] = place[got]
    none = len(names)
    of = np.append(gt.classes, none)[chosen]  # NOTHING is the last
    counted = np.append(gt.state == 0, True)[chosen]
    counts = np.zeros((none + 1, none + 1), np.int64)
    np.add.at(counts, (of[counted], found.classes[counted]), 1)
    missed = gt.state == 0
    missed[chosen[chosen != NOTHING]] = False
    counts[:none, none] += np.bincount(gt.classes[missed], minlength=none)
    return Confusion(
        names=(*names, BACKGROUND),
        counts=counts,
        unit="objects",
        note=f"{rule.text}, score {min_score:g}",
    )
