"""Shapes that people draw by hand, as polygons and as objects with masks."""

import math
from collections.abc import Sequence

from mtl_ray.geometry import masks
from mtl_ray.sources.objects import FoundObject

Points = list[tuple[float, float]]

_FEWEST, _MOST = 12, 720
"""Corners of a circle: so many that it is nowhere more than a pixel off."""


def points_of(xs: Sequence[object], ys: Sequence[object]) -> Points:
    """Points of two lists of coordinates.

    Raises:
        ValueError: if they are not numbers, or not as many.
    """
    if len(xs) != len(ys):
        raise ValueError(f"it has {len(xs)} x and {len(ys)} y")
    found: Points = []
    for x, y in zip(xs, ys, strict=True):
        if not isinstance(x, int | float) or not isinstance(y, int | float) or not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError("a point that is not made of finite numbers")
        found.append((float(x), float(y)))
    return found


def rectangle(first: tuple[float, float], second: tuple[float, float]) -> Points:
    """The corners of the upright rectangle between two opposite ones."""
    (x1, y1), (x2, y2) = first, second
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def ellipse(centre: tuple[float, float], radius_x: float, radius_y: float, angle: float = 0.0) -> Points:
    """Corners of an ellipse whose first radius points to ``angle`` (radians, from x to y)."""
    longest = max(radius_x, radius_y, 1.0)
    number = min(_MOST, max(_FEWEST, math.ceil(math.pi / math.acos(1 - 1 / longest))))
    turns = [2 * math.pi * step / number for step in range(number)]
    local = [(radius_x * math.cos(turn), radius_y * math.sin(turn)) for turn in turns]
    cos, sin = math.cos(angle), math.sin(angle)
    return [(centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos) for x, y in local]


def drawn(name: str, class_index: int, polygons: Sequence[Points], height: int, width: int) -> FoundObject:
    """The object that some polygons together show: their mask, its area, and the box around all corners.

    Raises:
        ValueError: if a polygon has fewer than three corners.
    """
    if any(len(polygon) < 3 for polygon in polygons):
        raise ValueError("a polygon of fewer than three points")
    mask = masks.from_polygons([[value for point in polygon for value in point] for polygon in polygons], height, width)
    xs, ys = zip(*(point for polygon in polygons for point in polygon), strict=True)
    return FoundObject(
        name=name,
        box_xyxy=(min(xs), min(ys), max(xs), max(ys)),
        class_index=class_index,
        area=float(masks.area(mask, height, width)),
        mask=mask,
    )
