"""The shapes of a labelme file become objects; those of one label and one group are one object."""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_ray.geometry import masks
from mtl_ray.image_file import load_image, open_image
from mtl_ray.sources.objects import FoundObject
from mtl_ray.sources.shapes import Points, drawn, ellipse, points_of, rectangle
from mtl_ray.sources.source import Reject

NO_CLASSES = frozenset({"__ignore__", "_background_", ""})
"""Labels by which labelme's own tools mean that something is no object."""

Group = list[tuple[str, Mapping[str, Any]]]


def objects(shapes: Sequence[Any], file: str, index: Mapping[str, int], height: int, width: int) -> tuple[list[FoundObject], list[Reject]]:
    """The objects of a file, and a Reject for each shape that is none.

    Args:
        shapes: as the file has them.
        file: what to call it in a reject.
        index: class indices by label.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
    """
    groups: dict[tuple[str, Any], Group] = {}
    rejects = []
    for number, shape in enumerate(shapes, start=1):
        label = str(shape.get("label", "")) if isinstance(shape, dict) else ""
        name = f"shape {number} ({label})"
        if label not in index:
            rejects.append(Reject(file, name, f"the class {label!r} is not in the list of classes"))
            continue
        group = shape.get("group_id")
        groups.setdefault((label, f"group {group}" if group is not None else number), []).append((name, shape))
    found = []
    for (label, _), group in groups.items():
        made, bad = _object(group, index[label], file, height, width)
        rejects += bad
        found += made
    return found, rejects


def _object(group: Group, class_index: int, file: str, height: int, width: int) -> tuple[list[FoundObject], list[Reject]]:
    """The object that a group of shapes makes; none if no shape of it can be understood."""
    polygons: list[Points] = []
    parts: list[FoundObject] = []
    rejects = []
    for name, shape in group:
        try:
            if shape.get("shape_type") == "mask":
                parts.append(_mask(shape, name, class_index, height, width))
            else:
                polygons.append(_polygon(shape))
        except ValueError as error:
            rejects.append(Reject(file, name, str(error)))
    name = group[0][0]
    parts += [drawn(name, class_index, polygons, height, width)] if polygons else []
    return [_union(parts, name, class_index, height, width)] if parts else [], rejects


def _union(parts: Sequence[FoundObject], name: str, class_index: int, height: int, width: int) -> FoundObject:
    if len(parts) == 1:
        return parts[0]
    pixels = np.maximum.reduce([masks.decode(part.mask, height, width) for part in parts])
    lows = [min(part.box_xyxy[side] for part in parts) for side in (0, 1)]
    highs = [max(part.box_xyxy[side] for part in parts) for side in (2, 3)]
    box = (lows[0], lows[1], highs[0], highs[1])
    return FoundObject(name=name, box_xyxy=box, class_index=class_index, area=float(pixels.sum()), mask=masks.encode(pixels))


def _polygon(shape: Mapping[str, Any]) -> Points:
    """The corners of a shape.

    Raises:
        ValueError: if it has no area, or its points make no sense.
    """
    given = shape.get("points")
    if not isinstance(given, list) or not all(isinstance(point, list) and len(point) == 2 for point in given):
        raise ValueError("its points are no list of pairs")
    kind = shape.get("shape_type") or ("rectangle" if len(given) == 2 else "polygon")  # files of before labelme 3 do not say it
    points = points_of([x for x, _ in given], [y for _, y in given])
    match kind:
        case "polygon" | "oriented_rectangle" if len(points) >= 3:
            return points
        case "rectangle" if len(points) == 2:
            return rectangle(*points)
        case "rectangle" if len(points) == 4:
            return points
        case "circle" if len(points) == 2:
            radius = math.dist(*points)
            return ellipse(points[0], radius, radius)
        case "polygon" | "oriented_rectangle" | "rectangle" | "circle":
            raise ValueError(f"a {kind} of {len(points)} points")
    raise ValueError(f"a {kind} has no area")


def _mask(shape: Mapping[str, Any], name: str, class_index: int, height: int, width: int) -> FoundObject:
    """A shape that is a small picture of its pixels, at the place of its first point."""
    (x1, y1), (x2, y2) = (tuple(map(float, point)) for point in shape["points"])
    try:
        encoded = base64.b64decode(shape["mask"], validate=True)
        pixels = np.asarray(load_image(open_image(encoded, max(1, height * width)))) != 0
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its mask is no picture that fits: {error}") from None
    left, top = int(x1), int(y1)
    if pixels.ndim != 2 or left < 0 or top < 0 or left + pixels.shape[1] > width or top + pixels.shape[0] > height:
        raise ValueError(f"its mask does not fit into the picture at {x1:g}, {y1:g} to {x2:g}, {y2:g}")
    whole = np.zeros((height, width), np.uint8)
    whole[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    coded = masks.encode(whole)
    return FoundObject(
        name=name,
        box_xyxy=masks.box_of(coded, height, width),
        class_index=class_index,
        area=float(pixels.sum()),
        mask=coded,
    )
