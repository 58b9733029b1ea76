"""Instances: the objects of an image, with boxes, masks and keypoints."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.annotation import UNKNOWN, AnnotationKind, Choose, ClassMapper, Region
from mtl_ray.annotations.instance_features import from_elsewhere, from_own, instances_to_features
from mtl_ray.annotations.instance_masks import Masks
from mtl_ray.annotations.instance_paste import cut_out, left_visible
from mtl_ray.annotations.instance_values import Instances, Objects, select
from mtl_ray.columns import ColumnType, Feature, Features
from mtl_ray.geometry import masks as rle
from mtl_ray.inputs.frame import Frame

if TYPE_CHECKING:
    from torch import Tensor

MASKS, KEYPOINTS = "masks", "keypoints"
"""The further arrays of a batch; see ``InstancesKind``."""


class InstancesKind(AnnotationKind[Instances, Objects]):
    """See ``AnnotationKind``.

    A batch has, with M the most objects of any sample, at least 1, and in pixels of the canvas:

        ``boxes`` float32 (B, M, 4) xyxy, ``classes`` int64 (B, M), ``crowd`` bool (B, M) (a region
        to ignore), ``present`` bool (B, M) (False is padding); if a head reads ``masks``: ``masks``
        uint8 (B, M, H, W), 1 where the object is, and ``has_mask`` bool (B, M), False also where an
        object is too small to be drawn; if a head reads ``keypoints``: ``keypoints`` float32
        (B, M, K, 3) as x, y, visibility. An object with a mask of which no pixel is left in the
        image is not ``present``.
    """

    name = "instances"
    columns: ClassVar[Mapping[str, ColumnType]] = {
        "boxes_xyxy": "list<xyxy>",
        "classes": "list<int64>",
        "ids": "list<int64>",
        "areas": "list<float32>",
        "crowd": "list<bool>",
        "difficult": "list<bool>",
        "truncated": "list<bool>",
        "masks": "list<binary>",
        "num_keypoints": "int32",
        "keypoints": "list<float32>",
        "attributes": "map<list<int64>>",
    }
    class_column = "classes"
    unit = "instances"
    balance_order = 0
    fields = frozenset((MASKS, KEYPOINTS))
    cut_fields = frozenset((MASKS,))

    # Storage.

    def to_row(self, value: Instances) -> Mapping[str, Any]:
        """See ``AnnotationKind``."""
        same = (
            "boxes_xyxy",
            "classes",
            "ids",
            "areas",
            "crowd",
            "difficult",
            "truncated",
            "masks",
            "attributes",
        )
        row = {name: getattr(value, name) for name in same}
        if value.keypoints is not None:
            row |= {"num_keypoints": value.keypoints.shape[1], "keypoints": value.keypoints.ravel()}
        return row

    def from_row(self, row: Mapping[str, Any]) -> Instances | None:
        """See ``AnnotationKind``."""
        boxes_xyxy, num_keypoints = row["boxes_xyxy"], row["num_keypoints"]
        if boxes_xyxy is None:
            return None
        return Instances(
            boxes_xyxy=boxes_xyxy,
            classes=row["classes"],
            ids=row["ids"],
            areas=row["areas"],
            crowd=row["crowd"],
            difficult=row["difficult"],
            truncated=row["truncated"],
            masks=row["masks"],
            keypoints=None
            if num_keypoints is None
            else row["keypoints"].reshape(len(boxes_xyxy), num_keypoints, 3),
            attributes=row["attributes"] or {},
        )

    def num_bytes(self, value: Instances) -> int:
        """See ``AnnotationKind``."""
        return sum(map(len, value.masks or ()))

    def to_features(self, value: Instances, keypoints: Sequence[str]) -> dict[str, Feature]:
        """The names that ObjectiveMTL's readers look for, boxes and points in whole pixels;
        ``mtl/`` holds what these cannot.
        """
        return instances_to_features(value, keypoints)

    def from_features(
        self, features: Features, keypoints: Sequence[str], annotated: bool | None
    ) -> Instances | None:
        """See ``AnnotationKind``."""
        if annotated is None:
            return from_elsewhere(features, keypoints) if "bbox/class" in features else None
        return from_own(features) if annotated else None

    # Classes.

    def classes(self, value: Instances) -> NDArray[np.int64]:
        """The class of each object."""
        return value.classes

    def num_annotations(self, value: Instances, counts: Mapping[int, int]) -> int:
        """One for each object."""
        return len(value)

    def with_classes(self, value: Instances, mapper: ClassMapper) -> Instances:
        """See ``AnnotationKind``."""
        classes = mapper.indices[value.classes]
        return select(replace(value, classes=classes), classes != UNKNOWN)

    # From a sample to a batch.

    def load(
        self,
        value: Instances,
        mapper: ClassMapper,
        raw: NDArray[np.uint8],
        limit: int,
        fields: frozenset[str],
    ) -> Objects:
        """See ``AnnotationKind``."""
        value = self.with_classes(value, mapper) if (mapper.indices == UNKNOWN).any() else value
        masks = None
        if MASKS in fields:
            masks = Masks.of(
                value.masks if value.masks is not None else (b"",) * len(value),
                (raw.shape[0], raw.shape[1]),
            )
        keypoints = None
        if KEYPOINTS in fields:
            keypoints = (
                value.keypoints
                if value.keypoints is not None
                else np.zeros((len(value), 0, 3), np.float32)
            )
        return Objects(
            boxes_xyxy=value.boxes_xyxy,
            classes=mapper.indices[value.classes],
            crowd=value.crowd | value.difficult,
            masks=masks,
            keypoints=keypoints,
        )

    def flip(self, part: Objects, axis: int, length: int, mirror: Sequence[int]) -> Objects:
        """See ``AnnotationKind``; left and right keypoints change places in a mirror, whichever
        way it hangs.
        """
        boxes = part.boxes_xyxy.copy()
        boxes[:, axis], boxes[:, axis + 2] = (
            length - part.boxes_xyxy[:, axis + 2],
            length - part.boxes_xyxy[:, axis],
        )
        scale, offset = (
            ((-1.0, 1.0), (float(length), 0.0))
            if axis == 0
            else ((1.0, -1.0), (0.0, float(length)))
        )
        flipped = part.moved(boxes, scale, offset)
        if flipped.keypoints is None or flipped.keypoints.shape[1] != len(mirror):
            return flipped
        return replace(flipped, keypoints=flipped.keypoints[:, list(mirror)])

    def crop(
        self, part: Objects, top: int, left: int, height: int, width: int, min_visible: float
    ) -> Objects:
        """See ``AnnotationKind``."""
        boxes = part.boxes_xyxy - np.array([left, top, left, top], np.float32)
        return part.moved(boxes, (1.0, 1.0), (-left, -top)).clipped(height, width, min_visible)

    def pad(self, part: Objects, top: int, left: int, height: int, width: int) -> Objects:
        """See ``AnnotationKind``."""
        return part.moved(
            part.boxes_xyxy + np.array([left, top, left, top], np.float32), (1.0, 1.0), (left, top)
        )

    def join(
        self,
        parts: Sequence[tuple[Objects | None, Region, tuple[int, int]]],
        height: int,
        width: int,
    ) -> Objects | None:
        """The objects of all images; an image that is not annotated becomes a region to ignore."""
        if all(part is None for part, _, _ in parts):
            return None
        like = next(part for part, _, _ in parts if part is not None)
        shown = [
            _in_mosaic(part, region, corner, like)
            for part, region, corner in parts
            if region.height and region.width
        ]
        return _concatenated(shown, like)

    def blend(self, part: Objects, other: Objects) -> Objects:
        """The objects of both images."""
        return _concatenated([part, other], part)

    def cut_out(
        self, part: Objects, height: int, width: int, choose: Choose
    ) -> tuple[Objects, NDArray[np.uint8]] | None:
        """Objects with a mask; regions to ignore are not cut out."""
        return cut_out(part, height, width, choose)

    def paste(
        self, part: Objects, pasted: Objects | None, shape: NDArray[np.uint8], min_visible: float
    ) -> Objects | None:
        """What is left of the objects, and the pasted ones."""
        if pasted is None:
            return None
        return _concatenated([left_visible(part, shape, min_visible), pasted], part)

    def place(self, part: Objects, frame: Frame) -> Objects:
        """See ``AnnotationKind``."""
        boxes = frame.boxes_to_canvas(part.boxes_xyxy)
        placed = part.moved(boxes, (frame.scale_x, frame.scale_y), (frame.offset_x, frame.offset_y))
        return placed.clipped(frame.valid_height, frame.valid_width)

    def collate(
        self,
        parts: Sequence[Objects | None],
        classes: Sequence[str],
        rule: Any,
        fields: frozenset[str],
    ) -> dict[str, NDArray[Any]]:
        """See the class."""
        known = [(row, part) for row, part in enumerate(parts) if part is not None]
        size, most = len(parts), max([1, *(len(part.classes) for _, part in known)])
        found: dict[str, NDArray[Any]] = {
            "boxes": np.zeros((size, most, 4), np.float32),
            "classes": np.zeros((size, most), np.int64),
            "crowd": np.zeros((size, most), np.bool_),
            "present": np.zeros((size, most), np.bool_),
        }
        if MASKS in fields:
            found["masks"] = np.zeros((size, most, rule.height, rule.width), np.uint8)
            found["has_mask"] = np.zeros((size, most), np.bool_)
        if KEYPOINTS in fields:
            points = max(
                [0, *(part.keypoints.shape[1] for _, part in known if part.keypoints is not None)]
            )
            found["keypoints"] = np.zeros((size, most, points, 3), np.float32)
        for row, part in known:
            count = len(part.classes)
            found["boxes"][row, :count], found["classes"][row, :count] = (
                part.boxes_xyxy,
                part.classes,
            )
            found["crowd"][row, :count], found["present"][row, :count] = part.crowd, True
            if MASKS in found and part.masks is not None:
                drawn = part.masks.render(found["masks"][row, :count])
                found["has_mask"][row, :count] = drawn
                found["present"][row, :count] &= ~part.masks.outside(~drawn)
            if part.keypoints is not None and part.keypoints.shape[1]:
                found["keypoints"][row, :count] = part.keypoints
        return found

    def narrow_batch(
        self, targets: Mapping[str, "Tensor"], to_head: "Tensor", of_head: "Tensor"
    ) -> dict[str, "Tensor"]:
        """See ``AnnotationKind``. Regions to ignore stay, whatever their class: a mosaic has one
        for a whole image.
        """
        classes = to_head[targets["classes"]]  # (B, M)
        kept = targets["present"] & ((classes != UNKNOWN) | targets["crowd"])
        return {**targets, "classes": classes.clamp(min=0), "present": kept}

    def from_batch(self, arrays: Mapping[str, NDArray[Any]]) -> Instances:
        """See ``AnnotationKind``; in pixels of the canvas."""
        present = arrays["present"]
        boxes = arrays["boxes"][present]
        count = len(boxes)
        masks = None
        if MASKS in arrays:
            drawn = zip(arrays[MASKS][present], arrays["has_mask"][present], strict=True)
            masks = tuple(rle.encode_rle(mask) if known else b"" for mask, known in drawn)
        return Instances(
            boxes_xyxy=boxes,
            classes=arrays["classes"][present],
            ids=np.full(count, -1),
            areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
            crowd=arrays["crowd"][present],
            difficult=np.zeros(count, np.bool_),
            truncated=np.zeros(count, np.bool_),
            masks=masks,
            keypoints=arrays[KEYPOINTS][present] if KEYPOINTS in arrays else None,
        )


def _in_mosaic(
    part: Objects | None, region: Region, corner: tuple[int, int], like: Objects
) -> Objects:
    """The objects of one image at their place in a mosaic; ``like`` says which arrays they have."""
    top, left = corner
    at = np.array([left, top, left, top], np.float32)
    if part is None:
        whole = np.array([[left, top, left + region.width, top + region.height]], np.float32)
        return Objects(
            boxes_xyxy=whole,
            classes=np.zeros(1, np.int64),
            crowd=np.ones(1, np.bool_),
            masks=None if like.masks is None else Masks.of((b"",), (1, 1)),
            keypoints=None
            if like.keypoints is None
            else np.zeros((1, *like.keypoints.shape[1:]), np.float32),
        )
    scale_xy = region.scale_x, region.scale_y
    start = np.array([region.columns.start, region.rows.start] * 2, np.float32)
    boxes = (part.boxes_xyxy - start) * np.array(scale_xy * 2, np.float32)
    offset_xy = -region.columns.start * region.scale_x, -region.rows.start * region.scale_y
    shown = part.moved(boxes, scale_xy, offset_xy).clipped(
        region.height, region.width, region.min_visible
    )
    return shown.moved(shown.boxes_xyxy + at, (1.0, 1.0), (left, top))


def _concatenated(parts: Sequence[Objects], like: Objects) -> Objects:
    return Objects(
        boxes_xyxy=np.concatenate([part.boxes_xyxy for part in parts]),
        classes=np.concatenate([part.classes for part in parts]),
        crowd=np.concatenate([part.crowd for part in parts]),
        masks=None
        if like.masks is None
        else Masks.concatenated([part.masks for part in parts if part.masks is not None]),
        keypoints=None
        if like.keypoints is None
        else _padded([part.keypoints for part in parts if part.keypoints is not None]),
    )


def _padded(keypoints: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(N, K, 3) of several groups; those with fewer keypoints get some that are not labelled."""
    most = max(each.shape[1] for each in keypoints)
    return np.concatenate(
        [np.pad(each, ((0, 0), (0, most - each.shape[1]), (0, 0))) for each in keypoints]
    )


INSTANCES = InstancesKind()
