"""The pairs of detections and objects that overlap, in the image, from above and in space."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.rotated_iou import common_heights, paired_intersections
from mtl_ray.tasks.lidar.kitti.columns import DONT_CARE, KittiColumns
from mtl_ray.tasks.lidar.matching import same_frame_pairs

AREAS = ("2D", "BEV", "3D")
LEAST = 0.25
"""The lowest overlap that any rule asks for."""
CHUNK = 1_000_000
"""Pairs looked at together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KittiOverlaps:
    """P pairs.

    Attributes:
        gt, found: (P,) indices of the object and the detection.
        overlap: (P,) intersection over union by area, see ``AREAS``.
    """

    gt: NDArray[np.int64]
    found: NDArray[np.int64]
    overlap: Mapping[str, NDArray[np.float64]]

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> "KittiOverlaps":
        """Some of them."""
        return KittiOverlaps(
            gt=self.gt[which],
            found=self.found[which],
            overlap={area: values[which] for area, values in self.overlap.items()},
        )


def kitti_overlaps(gt: KittiColumns, found: KittiColumns, names: frozenset[str]) -> KittiOverlaps:
    """The pairs in one frame that overlap by more than ``LEAST`` in any way.

    Args:
        gt: objects of all frames.
        found: detections of the same frames.
        names: in small letters, of the objects that are wanted.
    """
    wanted = np.flatnonzero(np.isin(gt.lower, list(names)))
    parts = []
    per_frame = np.bincount(found.frames, minlength=int(gt.frames.max(initial=-1)) + 1)
    ends = np.cumsum(per_frame[gt.frames[wanted]])
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.searchsorted(ends, np.arange(0, total, CHUNK), side="right")
    for objects in np.split(wanted, cuts[1:]):
        one, other = same_frame_pairs(gt.frames[objects], found.frames)
        parts.append(_overlapping(gt, found, objects[one], other))
    return KittiOverlaps(
        gt=np.concatenate([part.gt for part in parts]),
        found=np.concatenate([part.found for part in parts]),
        overlap={area: np.concatenate([part.overlap[area] for part in parts]) for area in AREAS},
    )


def _overlapping(
    gt: KittiColumns, found: KittiColumns, one: NDArray[np.int64], other: NDArray[np.int64]
) -> KittiOverlaps:
    """The pairs of two lists of indices that overlap enough."""
    image = _over_union_2d(gt.boxes_2d[one], found.boxes_2d[other])
    apart = gt.boxes[one, :2] - found.boxes[other, :2]
    reach = np.hypot(*gt.boxes[:, 3:5].T)[one] + np.hypot(*found.boxes[:, 3:5].T)[other]
    near = np.hypot(*apart.T) < reach / 2
    common = np.zeros(len(one))
    common[near] = paired_intersections(gt.boxes[one[near]], found.boxes[other[near]])
    kept = (image > LEAST) | (common > 0)
    one, other, image, common = one[kept], other[kept], image[kept], common[kept]
    ours, theirs = gt.boxes[one], found.boxes[other]
    areas = ours[:, 3] * ours[:, 4], theirs[:, 3] * theirs[:, 4]
    volume = common * common_heights(ours, theirs)
    overlap = {
        "2D": image,
        "BEV": _ratio(common, areas[0] + areas[1] - common),
        "3D": _ratio(volume, areas[0] * ours[:, 5] + areas[1] * theirs[:, 5] - volume),
    }
    pairs = KittiOverlaps(gt=one, found=other, overlap=overlap)
    return pairs.take(np.max([overlap[area] for area in AREAS], axis=0) > LEAST)


def dont_care_shares(gt: KittiColumns, found: KittiColumns) -> NDArray[np.float64]:
    """(D,) the largest share of each detection's 2-D box that one region ``DontCare`` covers."""
    shares = np.zeros(len(found))
    regions = gt.take(gt.names == DONT_CARE)
    one, other = same_frame_pairs(regions.frames, found.frames)
    boxes = found.boxes_2d[other]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    covered = _ratio(_common_2d(regions.boxes_2d[one], boxes), area)
    np.maximum.at(shares, other, covered)
    return shares


def _over_union_2d(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    common = _common_2d(first, second)
    area = (first[:, 2] - first[:, 0]) * (first[:, 3] - first[:, 1])
    other = (second[:, 2] - second[:, 0]) * (second[:, 3] - second[:, 1])
    return _ratio(common, other + area - common)


def _common_2d(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Square pixels that both of each pair have; 0 where one is not known."""
    width = np.minimum(first[:, 2], second[:, 2]) - np.maximum(first[:, 0], second[:, 0])
    height = np.minimum(first[:, 3], second[:, 3]) - np.maximum(first[:, 1], second[:, 1])
    both = (width > 0) & (height > 0)  # False for NaN
    return np.where(both, width * height, 0.0)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 where there is no part."""
    return np.divide(part, whole, out=np.zeros_like(part), where=part > 0)
