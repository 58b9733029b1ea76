"""The annotations of one image of a COCO file: boxes, masks, keypoints.

Files converted from Pascal VOC mark difficult objects as crowds; with ``difficult`` too, an object
is difficult, not a crowd.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_ray.geometry import masks
from mtl_ray.sources.coco_masks import mask_of
from mtl_ray.sources.json_values import flag, identity, number, shown, whole
from mtl_ray.sources.objects import FoundObject
from mtl_ray.sources.source import SkippedItem, unknown_class

NOT_CHOSEN = "class not chosen"
"""General part of the note on an object whose class is not in the user's list of classes."""
_LARGEST = 1e9
"""Larger areas and keypoint coordinates are invalid."""


def coco_objects(
    annotations: Sequence[Mapping[str, Any]],
    file: str,
    index: Mapping[int | str, int],
    names: Mapping[int | str, str],
    height: int,
    width: int,
    *,
    keypoints: int,
) -> tuple[list[FoundObject], list[SkippedItem]]:
    """The objects of an image, and a SkippedItem for each invalid one; an object with an invalid
    mask keeps its box.

    Args:
        annotations: entries of the COCO file.
        file: name of the annotation file, for skipped items.
        index: class indices by category id.
        names: of all categories, by id; those without an index were not chosen.
        height: of the image in pixels.
        width: of the image in pixels.
        keypoints: number of keypoints per object; 0 to read none.
    """
    found, skipped = [], []
    for annotation in annotations:
        name = name_of(annotation)
        category = identity(annotation.get("category_id"))
        if category is None or category not in names:
            skipped.append(
                SkippedItem(
                    file,
                    name,
                    unknown_class(
                        f"category {shown(annotation.get('category_id'))}, which is not in the list"
                    ),
                )
            )
            continue
        if category not in index:
            skipped.append(SkippedItem(file, name, f"{NOT_CHOSEN}: {names[category]}", note=True))
            continue
        mask, notes = _mask(annotation.get("segmentation"), file, name, height, width)
        skipped += notes
        try:
            found.append(_object(annotation, name, index[category], mask, height, width, keypoints))
        except ValueError as error:
            skipped.append(SkippedItem(file, name, str(error)))
    return found, skipped


def name_of(annotation: Mapping[str, Any]) -> str:
    """The name of an annotation in skipped items."""
    number = annotation.get("id", "?")
    return f"annotation {number if isinstance(number, int | str) else shown(number)}"


def _mask(
    segmentation: Any, file: str, name: str, height: int, width: int
) -> tuple[bytes, list[SkippedItem]]:
    try:
        mask, dropped = mask_of(segmentation, height, width)
    except ValueError as error:
        return b"", [SkippedItem(file, name, f"its mask is left out: {error}")]
    return mask, [SkippedItem(file, name, dropped, note=True)] if dropped else []


def _object(
    annotation: Mapping[str, Any],
    name: str,
    class_index: int,
    mask: bytes,
    height: int,
    width: int,
    keypoints: int,
) -> FoundObject:
    area = number(annotation.get("area"))
    if area is None or not 0 <= area <= _LARGEST:
        area = float(masks.area(mask, height, width)) if mask else None
    own_id = whole(annotation.get("id"))
    difficult = flag(annotation.get("difficult"))
    return FoundObject(
        name=name,
        box_xyxy=_box(annotation.get("bbox"), mask, height, width),
        class_index=class_index,
        id=-1 if own_id is None else own_id,
        area=area,
        crowd=flag(annotation.get("iscrowd")) and not difficult,
        difficult=difficult,
        truncated=flag(annotation.get("truncated")),
        mask=mask,
        keypoints=_points(annotation.get("keypoints"), keypoints) if keypoints else None,
    )


def _box(box: Any, mask: bytes, height: int, width: int) -> tuple[float, float, float, float]:
    """The box as xyxy; the box of the mask if the annotation has none."""
    if not box and mask:
        return masks.mask_box(mask, height, width)
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"its box is not four numbers: {shown(box)}")
    if any(isinstance(value, float) and number(value) is None for value in box):
        raise ValueError("its box is not made of finite numbers")
    x, y, box_width, box_height = (number(value) for value in box)
    if x is None or y is None or box_width is None or box_height is None:
        raise ValueError(f"its box is not four numbers: {shown(box)}")
    return x, y, x + box_width, y + box_height


def _points(values: Any, keypoints: int) -> list[tuple[float, float, float]]:
    """Keypoints as x, y, visibility; all zeros if the object has none."""
    if not values:
        return [(0.0, 0.0, 0.0)] * keypoints
    if not isinstance(values, list):
        raise ValueError(f"its keypoints are not a list: {shown(values)}")
    if all(isinstance(point, list) and len(point) == 3 for point in values):
        values = [value for point in values for value in point]
    if len(values) != 3 * keypoints:
        raise ValueError(
            f"its keypoints are not as many as those of its category: {len(values) / 3:g}, not "
            f"{keypoints}"
        )
    found = [value for value in map(number, values) if value is not None and abs(value) <= _LARGEST]
    if len(found) < len(values):
        raise ValueError("a keypoint without finite numbers")
    points = zip(found[::3], found[1::3], found[2::3], strict=True)
    return [point if point[2] > 0 else (0.0, 0.0, 0.0) for point in points]
