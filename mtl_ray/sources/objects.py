"""Converts the objects of one image, as annotation files list them, to checked ``Instances``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mtl_ray.annotations.instance_values import Instances
from mtl_ray.geometry import boxes
from mtl_ray.sources.source import SkippedItem


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundObject:
    """One object of an annotation file.

    Attributes:
        name: of the image, for messages.
        box_xyxy: pixels of the image as shown, not yet checked.
        class_index: index into the classes of instances.
        id, area, crowd, difficult, truncated, mask, keypoints, attributes: as in ``Instances``.
    """

    name: str
    box_xyxy: tuple[float, float, float, float]
    class_index: int
    id: int = -1
    area: float | None = None
    crowd: bool = False
    difficult: bool = False
    truncated: bool = False
    mask: bytes = b""
    keypoints: Sequence[tuple[float, float, float]] | None = None
    attributes: Mapping[str, int] = field(default_factory=dict)


def to_instances(
    found: Sequence[FoundObject],
    file: str,
    height: int,
    width: int,
    *,
    masks: bool = False,
    keypoints: int = 0,
    attributes: Sequence[str] = (),
) -> tuple[Instances, list[SkippedItem]]:
    """The objects with valid boxes, clipped to the image, and a SkippedItem for each other object.

    Args:
        found: the objects of one image.
        file: name of the annotation file, for skipped items.
        height: of the image as shown, in pixels.
        width: of the image as shown, in pixels.
        masks: whether the dataset has masks.
        keypoints: number of keypoints per object; 0 for none.
        attributes: names of the further columns.
    """
    kept, skipped = [], []
    for item in found:
        if reason := box_error(item.box_xyxy, height, width):
            skipped.append(SkippedItem(file, item.name, reason))
        else:
            kept.append(item)
    boxes_xyxy = boxes.clip(
        np.array([item.box_xyxy for item in kept], np.float64).reshape(-1, 4), height, width
    ).astype(np.float32)
    own_areas = boxes.areas(boxes_xyxy)
    points = [
        item.keypoints if item.keypoints is not None else [(0.0, 0.0, 0.0)] * keypoints
        for item in kept
    ]
    instances = Instances(
        boxes_xyxy=boxes_xyxy,
        classes=np.array([item.class_index for item in kept], np.int64),
        ids=np.array([item.id for item in kept], np.int64),
        areas=np.array(
            [
                own if item.area is None else item.area
                for item, own in zip(kept, own_areas, strict=True)
            ],
            np.float32,
        ),
        crowd=np.array([item.crowd for item in kept], np.bool_),
        difficult=np.array([item.difficult for item in kept], np.bool_),
        truncated=np.array([item.truncated for item in kept], np.bool_),
        masks=tuple(item.mask for item in kept) if masks else None,
        keypoints=np.array(points, np.float32).reshape(-1, keypoints, 3) if keypoints else None,
        attributes={
            name: np.array([item.attributes.get(name, -1) for item in kept], np.int64)
            for name in attributes
        },
    )
    return instances, skipped


def box_error(box_xyxy: tuple[float, float, float, float], height: int, width: int) -> str:
    """Why a box is invalid in an image of (height, width) pixels; empty if it is valid."""
    if not all(math.isfinite(value) for value in box_xyxy):
        return "its box is not made of finite numbers"
    x1, y1, x2, y2 = box_xyxy
    if x2 <= x1 or y2 <= y1:
        return f"its box has no area: x {x1:g} to {x2:g}, y {y1:g} to {y2:g}"
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        return (
            f"its box lies outside the {width} x {height} image: x {x1:g} to {x2:g}, y {y1:g} "
            f"to {y2:g}"
        )
    return ""
