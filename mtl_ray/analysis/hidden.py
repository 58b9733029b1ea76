"""Which annotated objects are partly behind others, told from their masks alone."""

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.geometry.masks import decode
from mtl_ray.tasks.detection.occlusion import Hidden

PIECE = 0.05
"""A part of a mask is a piece if it has at least this share of its pixels; less is a speck of the annotation."""
COVERED = 0.05
"""An object is behind another one that covers at least this share of its convex hull."""
NEAR_PX = 3
"""Masks that are no farther apart touch: drawn outlines leave gaps."""


def hidden_in(truth: Instances, height: int, width: int) -> dict[int, Hidden]:
    """Of the objects of one image those that are separated or occluded, by their place.

    An object is behind another one that touches it if that one covers more of its convex hull than it covers of the other's (the
    order that Zhan et al. 2020, "Self-Supervised Scene De-occlusion", compare with), and at least 5 %. It is separated if what is in
    front of it lies between two or more pieces of its mask, each of at least 5 % of it; occluded if its mask is one piece. Crowds and
    objects without a mask are neither.

    Args:
        truth: the objects; without masks none is hidden.
        height: of the image.
        width: the same.
    """
    if truth.masks is None or len(truth) < 2:
        return {}
    known = [i for i in range(len(truth)) if truth.masks[i] and not truth.crowd[i]]
    masks = {i: decode(truth.masks[i], height, width) for i in known}
    hulls = {i: _hull(mask) for i, mask in masks.items() if mask.any()}
    found: dict[int, Hidden] = {}
    for i in hulls:
        fronts = [j for j in hulls if j != i and _is_behind(masks[i], hulls[i], masks[j], hulls[j])]
        if not fronts:
            continue
        pieces = _pieces(masks[i])
        if len(pieces) < 2:
            found[i] = "occluded"
        elif any(sum(bool((piece & _grown(masks[j])).any()) for piece in pieces) > 1 for j in fronts):
            found[i] = "separated"
    return found


def _is_behind(mask: NDArray[np.uint8], hull: NDArray[np.uint8], other: NDArray[np.uint8], other_hull: NDArray[np.uint8]) -> bool:
    covered = int(np.count_nonzero(hull & other))
    if covered < COVERED * np.count_nonzero(hull) or covered <= np.count_nonzero(other_hull & mask):
        return False
    return bool((_grown(mask) & other).any())


def _hull(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The convex hull of a mask, filled."""
    filled = np.zeros_like(mask)
    cv2.fillConvexPoly(filled, cv2.convexHull(cv2.findNonZero(mask)), 1)
    return filled


def _grown(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = 2 * NEAR_PX + 1
    return np.asarray(cv2.dilate(mask, np.ones((side, side), np.uint8)), np.uint8)


def _pieces(mask: NDArray[np.uint8]) -> list[NDArray[np.bool_]]:
    count, regions, sizes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    least = PIECE * np.count_nonzero(mask)
    return [regions == piece for piece in range(1, count) if sizes[piece, cv2.CC_STAT_AREA] >= least]
