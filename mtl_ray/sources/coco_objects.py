"""The annotations of one picture of a COCO file: boxes, polygons, run lengths, keypoints.

Files made of Pascal VOC call difficult objects crowds, for want of another word; where they say ``difficult`` too, that is meant.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_ray.geometry import masks
from mtl_ray.sources.json_values import shown
from mtl_ray.sources.objects import FoundObject
from mtl_ray.sources.source import Reject
from mtl_ray.sources.turned import OTHER_MASK_SIZE


def objects(
    annotations: Sequence[Mapping[str, Any]],
    file: str,
    index: Mapping[int, int],
    names: Mapping[int, str],
    height: int,
    width: int,
    *,
    keypoints: int,
) -> tuple[list[FoundObject], list[Reject]]:
    """The objects of a picture, and a Reject for each that is not understood; one of which only the mask is not keeps its box.

    Args:
        annotations: as COCO has them.
        file: what to call their file in a reject.
        index: class indices by category id.
        names: of all categories, by id; those that have no index were not asked for.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        keypoints: how many each object has; 0 to read none.
    """
    found, rejects = [], []
    for annotation in annotations:
        name = f"annotation {annotation.get('id', '?')}"
        category = annotation.get("category_id", -1)
        if category not in names:
            rejects.append(Reject(file, name, f"its category {category} is not in the list of categories"))
            continue
        if category not in index:
            rejects.append(Reject(file, name, f"its class {names[category]!r} is not in the list of classes"))
            continue
        try:
            mask = _mask(annotation.get("segmentation"), height, width)
        except ValueError as error:
            rejects.append(Reject(file, name, f"its mask is left out: {error}"))
            mask = b""
        try:
            found.append(_object(annotation, name, index[category], mask, height, width, keypoints))
        except ValueError as error:
            rejects.append(Reject(file, name, str(error)))
    return found, rejects


def _object(
    annotation: Mapping[str, Any], name: str, class_index: int, mask: bytes, height: int, width: int, keypoints: int
) -> FoundObject:
    area = annotation.get("area")
    if not isinstance(area, int | float) or not 0 <= area < math.inf:
        area = masks.area(mask, height, width) if mask else None
    number = annotation.get("id")
    return FoundObject(
        name=name,
        box_xyxy=_box(annotation.get("bbox"), mask, height, width),
        class_index=class_index,
        id=number if isinstance(number, int) else -1,
        area=None if area is None else float(area),
        crowd=bool(annotation.get("iscrowd", 0)) and not annotation.get("difficult"),
        difficult=bool(annotation.get("difficult", 0)),
        truncated=bool(annotation.get("truncated", 0)),
        mask=mask,
        keypoints=_points(annotation.get("keypoints"), keypoints) if keypoints else None,
    )


def _box(box: Any, mask: bytes, height: int, width: int) -> tuple[float, float, float, float]:
    """The box as xyxy; that of the mask where the annotation has none."""
    if not box and mask:
        return masks.box_of(mask, height, width)
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        raise ValueError(f"its box is not four numbers: {box}")
    x, y, box_width, box_height = map(float, box)
    return x, y, x + box_width, y + box_height


def _mask(segmentation: Any, height: int, width: int) -> bytes:
    """The encoding of polygons, of plain or of compressed run lengths; empty where there is none: ``[]``, or no run lengths at all.

    Raises:
        ValueError: if it is none of these, or made for a picture of another size.
    """
    if not segmentation or (isinstance(segmentation, dict) and not segmentation.get("counts")):
        return b""
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        size = segmentation.get("size") if isinstance(segmentation, dict) else None
        raise ValueError(f"{OTHER_MASK_SIZE}: height and width {shown(size)}, not {[height, width]}")
    counts = segmentation.get("counts")
    if isinstance(counts, list) and all(isinstance(count, int) for count in counts):
        return masks.from_counts(counts, height, width)
    if isinstance(counts, str) and counts.isascii():
        return masks.from_compressed(counts.encode(), height, width)
    raise ValueError("neither polygons nor run lengths")


def _from_polygons(polygons: Sequence[Any], height: int, width: int) -> bytes:
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon that is not a list of at least three points")
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in polygon):
            raise ValueError("a polygon with something else than finite numbers")
    return masks.from_polygons(polygons, height, width)


def _points(values: Any, keypoints: int) -> list[tuple[float, float, float]]:
    """The keypoints as x, y, visibility; all zeros where the object has none."""
    if not values:
        return [(0.0, 0.0, 0.0)] * keypoints
    if not isinstance(values, list) or len(values) != 3 * keypoints:
        raise ValueError(f"it has {len(values) / 3:g} keypoints, its category {keypoints}")
    points = [(float(values[at]), float(values[at + 1]), float(values[at + 2])) for at in range(0, len(values), 3)]
    if not all(math.isfinite(value) for point in points for value in point):
        raise ValueError("a keypoint that is not made of finite numbers")
    return [point if point[2] > 0 else (0.0, 0.0, 0.0) for point in points]
