"""Copy-paste of objects: cut out of one image, and what they leave visible in another one (Ghiasi
et al. 2021, Simple Copy-Paste, https://arxiv.org/abs/2012.07177, section 3).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.annotation import Choose
from mtl_ray.annotations.instance_masks import Masks
from mtl_ray.annotations.instance_values import Objects
from mtl_ray.geometry import masks as rle

HIDDEN, VISIBLE = 1.0, 2.0
"""The visibility of a keypoint that is labelled."""
LOOSE_PX = 1.5
"""A mask that is scaled may be so much smaller than its box."""


def cut_out(
    part: Objects, height: int, width: int, choose: Choose
) -> tuple[Objects, NDArray[np.uint8]] | None:
    """See ``AnnotationKind.cut_out``: some of the objects that have a mask in the image.

    A side of a box that is more than ``LOOSE_PX`` away from the mask moves to it: the edge of the
    image has cut the object.
    """
    if part.masks is None:
        return None
    able = np.flatnonzero(part.masks.known & ~part.crowd)
    if not len(able):
        return None
    chosen = able[choose(len(able))]
    shape = np.zeros((height, width), np.uint8)
    boxes, kept = part.boxes_xyxy.copy(), []
    for place in chosen.tolist():
        drawn = _drawn(part.masks, place, shape.shape)
        if drawn.any():
            kept.append(place)
            shape |= drawn
            visible = _extent(drawn)
            loose = np.abs(visible - boxes[place]) > LOOSE_PX
            boxes[place] = np.where(loose, visible, boxes[place])
    if not kept:
        return None
    return replace(part, boxes_xyxy=boxes).select(np.array(kept, np.int64)), shape


def left_visible(part: Objects, shape: NDArray[np.uint8], min_visible: float) -> Objects:
    """Objects behind pasted pixels: what is hidden leaves their masks, and their boxes shrink as
    far as their masks do.

    An object of which nothing or less than the share ``min_visible`` is left is dropped; of a
    region to ignore everything may be hidden but one pixel. An object without a mask keeps its box,
    and counts as its box. Keypoints behind a pasted object are hidden.
    """
    rows, columns = np.flatnonzero(shape.any(axis=1)), np.flatnonzero(shape.any(axis=0))
    if not len(rows):
        return part
    near = (
        (part.boxes_xyxy[:, 0] <= columns[-1] + 1)
        & (part.boxes_xyxy[:, 2] >= columns[0])
        & (part.boxes_xyxy[:, 1] <= rows[-1] + 1)
        & (part.boxes_xyxy[:, 3] >= rows[0])
    )
    boxes, keep = part.boxes_xyxy.copy(), np.ones(len(part.classes), np.bool_)
    redrawn: dict[int, bytes] = {}
    for place in np.flatnonzero(near).tolist():
        has_mask = part.masks is not None and bool(part.masks.counts[place])
        before = (
            _drawn(part.masks, place, shape.shape)
            if part.masks is not None and has_mask
            else _filled(part.boxes_xyxy[place], shape.shape)
        )
        after = before & (1 - shape)
        size, left = int(before.sum()), int(after.sum())
        if left == size:
            continue
        least = 0.0 if part.crowd[place] else min_visible
        keep[place] = left > 0 and left >= least * size
        if keep[place] and has_mask:
            redrawn[place] = rle.encode_rle(after)
            boxes[place] += _extent(after) - _extent(before)
    masks = part.masks if part.masks is None else _with_counts(part.masks, redrawn, shape.shape)
    keypoints = part.keypoints if part.keypoints is None else _hidden(part.keypoints, shape)
    found = replace(part, boxes_xyxy=boxes, masks=masks, keypoints=keypoints)
    return found if keep.all() else found.select(keep)


def _drawn(masks: Masks, place: int, hw: Sequence[int]) -> NDArray[np.uint8]:
    """(H, W) the mask of one object."""
    into = np.zeros((1, *hw), np.uint8)
    masks.select(np.array([place])).render(into)
    drawn: NDArray[np.uint8] = into[0]
    return drawn


def _filled(box_xyxy: NDArray[np.float32], hw: Sequence[int]) -> NDArray[np.uint8]:
    """(H, W) the pixels of a box."""
    x1, y1, x2, y2 = np.round(box_xyxy).astype(int).clip(min=0).tolist()
    drawn = np.zeros(tuple(hw), np.uint8)
    drawn[y1:y2, x1:x2] = 1
    return drawn


def _extent(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(4,) the xyxy box around a mask with at least one pixel."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def _with_counts(masks: Masks, redrawn: dict[int, bytes], hw: Sequence[int]) -> Masks:
    """The masks, some of them replaced by encodings of the whole image."""
    if not redrawn:
        return masks
    new = Masks.of(tuple(redrawn.values()), (hw[0], hw[1]))
    order = np.arange(len(masks.counts))
    order[list(redrawn)] = len(order) + np.arange(len(redrawn))
    return Masks.concatenated([masks, new]).select(order)


def _hidden(keypoints: NDArray[np.float32], shape: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Visible keypoints behind a pasted object are hidden."""
    height, width = shape.shape
    x, y, visibility = np.moveaxis(keypoints, -1, 0)
    column = np.floor(x).astype(np.int64).clip(0, width - 1)
    row = np.floor(y).astype(np.int64).clip(0, height - 1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    behind = inside & (shape[row, column] > 0) & (visibility == VISIBLE)
    return np.stack([x, y, np.where(behind, HIDDEN, visibility)], axis=-1).astype(np.float32)
