"""The objects of an image: as they are stored, and as transforms change them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.instance_masks import Masks


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Instances:
    """The objects of one image, N of them, as parallel arrays.

    Attributes:
        boxes_xyxy: (N, 4) float32, pixels of the shown image, x2 and y2 exclusive (a box over the
            whole image ends at width, height).
        classes: (N,) int64, indices into ``Vocabulary.classes["instances"]``.
        ids: (N,) int64, the annotation ids of the source; -1 where it has none.
        areas: (N,) float32, square pixels as the source states them (box area where it does not).
        crowd: (N,) bool, COCO ``iscrowd``: a region with many objects; never a training target, an
            ignore region in COCO metrics.
        difficult: (N,) bool, Pascal VOC ``difficult``.
        truncated: (N,) bool, Pascal VOC ``truncated``.
        masks: N COCO run-length encodings (the compressed ``counts`` bytes, of size (height, width)
            of the image), b"" for an object without one; None where the dataset has no masks.
        keypoints: (N, K, 3) float32 as x, y, visibility (0 not labelled, 1 hidden, 2 visible); None
            where the dataset has none.
        attributes: further (N,) int64 columns by name, -1 where unknown.
    """

    boxes_xyxy: NDArray[np.float32]
    classes: NDArray[np.int64]
    ids: NDArray[np.int64]
    areas: NDArray[np.float32]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    masks: tuple[bytes, ...] | None = None
    keypoints: NDArray[np.float32] | None = None
    attributes: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.classes)


def select(found: Instances, kept: NDArray[np.bool_]) -> Instances:
    """The objects of N for which ``kept`` (N,) is True."""
    return replace(
        found,
        boxes_xyxy=found.boxes_xyxy[kept],
        classes=found.classes[kept],
        ids=found.ids[kept],
        areas=found.areas[kept],
        crowd=found.crowd[kept],
        difficult=found.difficult[kept],
        truncated=found.truncated[kept],
        masks=None
        if found.masks is None
        else tuple(mask for mask, keep in zip(found.masks, kept, strict=True) if keep),
        keypoints=None if found.keypoints is None else found.keypoints[kept],
        attributes={name: column[kept] for name, column in found.attributes.items()},
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Objects:
    """What transforms change and a batch takes: N objects as parallel arrays.

    Attributes:
        boxes_xyxy: (N, 4) float32 pixels.
        classes: (N,) int64.
        crowd: (N,) bool, a region to ignore: COCO ``iscrowd`` or Pascal VOC ``difficult``.
        masks: their masks; None if no head reads them.
        keypoints: (N, K, 3) float32 as x, y, visibility; None if no head reads them.
    """

    boxes_xyxy: NDArray[np.float32]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    masks: Masks | None = None
    keypoints: NDArray[np.float32] | None = None

    def select(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "Objects":
        """Some of them."""
        return Objects(
            boxes_xyxy=self.boxes_xyxy[which],
            classes=self.classes[which],
            crowd=self.crowd[which],
            masks=None if self.masks is None else self.masks.select(which),
            keypoints=None if self.keypoints is None else self.keypoints[which],
        )

    def moved(
        self,
        boxes_xyxy: NDArray[np.float32],
        scale_xy: tuple[float, float],
        offset_xy: tuple[float, float],
    ) -> "Objects":
        """The same objects elsewhere: new = old * scale + offset. The boxes are given, so that
        their rounding is the caller's.
        """
        keypoints = self.keypoints
        if keypoints is not None:
            points = keypoints[..., :2] * np.array(scale_xy) + np.array(offset_xy)
            keypoints = np.concatenate([points, keypoints[..., 2:]], axis=-1).astype(np.float32)
        masks = None if self.masks is None else self.masks.moved(scale_xy, offset_xy)
        return replace(
            self,
            boxes_xyxy=boxes_xyxy.astype(np.float32, copy=False),
            masks=masks,
            keypoints=keypoints,
        )

    def clipped(
        self, height: int, width: int, min_visible: float = 0.0, min_side_px: float = 1.0
    ) -> "Objects":
        """Cut off at the edges of a (height, width) image.

        Boxes of whose area less than ``min_visible`` is left are dropped (regions to ignore stay),
        and those with a side under ``min_side_px``. Keypoints outside count as not labelled.
        """
        before = (self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]).prod(axis=1)
        boxes = np.clip(self.boxes_xyxy, 0, np.array([width, height, width, height], np.float32))
        sides = boxes[:, 2:] - boxes[:, :2]
        visible = (sides.prod(axis=1) >= min_visible * before) | self.crowd
        keep = visible & (sides.min(axis=1) >= min_side_px)
        keypoints = self.keypoints
        if keypoints is not None:
            x, y, visibility = np.moveaxis(keypoints, -1, 0)
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            keypoints = np.stack([x, y, np.where(inside, visibility, 0)], axis=-1).astype(
                np.float32
            )
        masks = None if self.masks is None else self.masks.clipped(height, width)
        found = replace(self, boxes_xyxy=boxes, masks=masks, keypoints=keypoints)
        return found if keep.all() else found.select(keep)
