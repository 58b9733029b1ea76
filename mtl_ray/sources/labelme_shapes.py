"""Converts the shapes of a labelme file to objects; shapes with the same label and group are one
object.

Supports the shapes of labelme, AnyLabeling and X-AnyLabeling.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_ray.geometry import masks
from mtl_ray.inputs.image_file import load_image, open_image
from mtl_ray.sources.json_values import identity, shown
from mtl_ray.sources.objects import FoundObject
from mtl_ray.sources.shapes import (
    Points,
    check_reach,
    ellipse,
    object_of_polygons,
    points_of,
    rectangle,
)
from mtl_ray.sources.source import SkippedItem, unknown_class

NO_CLASSES = frozenset({"__ignore__", "_background_", ""})
"""Labels that labelme's own tools ignore."""
_QUADRILATERALS = ("rotation", "rotated_rectangle", "oriented_rectangle", "quadrilateral")
_WITHOUT_AREA = ("line", "linestrip", "polyline", "point", "points")

LabelmeShape = Mapping[str, Any]
Group = list[tuple[str, LabelmeShape]]


def label_of(shape: object) -> str:
    """The label of a shape; empty if it is missing or not a text or number."""
    label = shape.get("label") if isinstance(shape, dict) else None
    return (
        str(label).strip()
        if isinstance(label, str | int | float) and not isinstance(label, bool)
        else ""
    )


def labelme_objects(
    shapes: Sequence[Any], file: str, index: Mapping[str, int], height: int, width: int
) -> tuple[list[FoundObject], list[SkippedItem]]:
    """The objects of a file, and a SkippedItem for each invalid shape.

    Args:
        shapes: entries of the file.
        file: name of the file, for skipped items.
        index: class indices by label.
        height: of the image in pixels.
        width: of the image in pixels.
    """
    groups: dict[tuple[str, str | int], Group] = {}
    skipped = []
    for number, shape in enumerate(shapes, start=1):
        label = label_of(shape)
        name = f"shape {number} ({label})" if label else f"shape {number}"
        if label not in index:
            skipped.append(SkippedItem(file, name, _why_no_object(shape, label)))
            continue
        groups.setdefault((label, _group_of(shape, number)), []).append((name, shape))
    found = []
    for (label, _), group in groups.items():
        made, invalid = _object(group, index[label], file, height, width)
        skipped += invalid
        found += made
    return found, skipped


def _why_no_object(shape: object, label: str) -> str:
    if not isinstance(shape, dict):
        return "a shape that is not a JSON object"
    if label in NO_CLASSES:
        return (
            f"labelled as no object: {label}"
            if label
            else f"a shape without a label: {shown(shape.get('label'))}"
        )
    return unknown_class(label)


def _group_of(shape: LabelmeShape, number: int) -> str | int:
    """A key of the group of a shape; the shape's number if it has no group."""
    group = shape.get("group_id")
    if group is None or group == "":
        return number
    known = identity(group)
    return f"group {shown(group) if known is None else known}"


def _object(
    group: Group, class_index: int, file: str, height: int, width: int
) -> tuple[list[FoundObject], list[SkippedItem]]:
    """The object of a group of shapes; empty if no shape is valid."""
    polygons: list[Points] = []
    parts: list[FoundObject] = []
    skipped = []
    for name, shape in group:
        try:
            if _kind_of(shape) == "mask":
                parts.append(_mask(shape, name, class_index, height, width))
            else:
                polygon = _polygon(shape)
                check_reach(polygon)
                polygons.append(polygon)
        except ValueError as error:
            skipped.append(SkippedItem(file, name, str(error)))
    name = group[0][0]
    parts += [object_of_polygons(name, class_index, polygons, height, width)] if polygons else []
    return [_union(parts, name, class_index, height, width)] if parts else [], skipped


def _union(
    parts: Sequence[FoundObject], name: str, class_index: int, height: int, width: int
) -> FoundObject:
    if len(parts) == 1:
        return parts[0]
    pixels = np.maximum.reduce([masks.decode_rle(part.mask, height, width) for part in parts])
    lows = [min(part.box_xyxy[side] for part in parts) for side in (0, 1)]
    highs = [max(part.box_xyxy[side] for part in parts) for side in (2, 3)]
    box = (lows[0], lows[1], highs[0], highs[1])
    return FoundObject(
        name=name,
        box_xyxy=box,
        class_index=class_index,
        area=float(pixels.sum()),
        mask=masks.encode_rle(pixels),
    )


def _kind_of(shape: LabelmeShape) -> str:
    """The kind of a shape; files before labelme 3 do not state it.

    Raises:
        ValueError: if it is not text.
    """
    kind = shape.get("shape_type")
    if kind is None or kind == "":
        given = shape.get("points")
        return "rectangle" if isinstance(given, list) and len(given) == 2 else "polygon"
    if not isinstance(kind, str):
        raise ValueError(f"an unknown kind of shape: {shown(kind)}")
    return kind.strip().lower()


def _points(shape: LabelmeShape) -> Points:
    given = shape.get("points")
    if not isinstance(given, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in given
    ):
        raise ValueError("its points are not a list of pairs")
    return points_of([x for x, _ in given], [y for _, y in given])


def _polygon(shape: LabelmeShape) -> Points:
    """The corners of a shape.

    Raises:
        ValueError: if it has no area, or its points are invalid.
    """
    kind = _kind_of(shape)
    if kind in _WITHOUT_AREA:
        raise ValueError(f"a shape without area: {kind}")
    if kind not in ("polygon", "rectangle", "circle", *_QUADRILATERALS):
        raise ValueError(f"an unknown kind of shape: {kind[:40]}")
    points = _points(shape)
    if kind == "rectangle" and len(points) in (2, 4):
        return rectangle(points)
    if kind == "circle" and len(points) == 2:
        radius = math.dist(*points)
        return ellipse(points[0], radius, radius)
    if (kind == "polygon" and len(points) >= 3) or (kind in _QUADRILATERALS and len(points) == 4):
        return points
    few = len(points) < (3 if kind == "polygon" else 4 if kind in _QUADRILATERALS else 2)
    raise ValueError(f"too {'few' if few else 'many'} points: a {kind} of {len(points)}")


def _mask(shape: LabelmeShape, name: str, class_index: int, height: int, width: int) -> FoundObject:
    """An object of a shape with a small mask image, whose top left corner is the first point."""
    corners = _points(shape)
    if len(corners) != 2:
        raise ValueError(f"a mask without the two corners of its box: {len(corners)} points")
    if not isinstance(shape.get("mask"), str):
        raise ValueError("a mask without its image")
    try:
        encoded = base64.b64decode(shape["mask"], validate=True)
        pixels = np.asarray(load_image(open_image(encoded, max(1, height * width)))) != 0
    except ValueError as error:
        raise ValueError(f"its mask is not a valid image: {error}") from None
    (x1, y1), (x2, y2) = corners
    left, top = int(x1), int(y1)
    if (
        pixels.ndim != 2
        or left < 0
        or top < 0
        or left + pixels.shape[1] > width
        or top + pixels.shape[0] > height
    ):
        raise ValueError(
            f"its mask does not fit into the image: at {x1:g}, {y1:g} to {x2:g}, {y2:g}"
        )
    whole = np.zeros((height, width), np.uint8)
    whole[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    coded = masks.encode_rle(whole)
    return FoundObject(
        name=name,
        box_xyxy=masks.mask_box(coded, height, width),
        class_index=class_index,
        area=float(pixels.sum()),
        mask=coded,
    )
