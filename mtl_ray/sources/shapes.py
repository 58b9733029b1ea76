"""Hand-drawn shapes as polygons, and polygons as objects with masks."""

import math
from collections.abc import Sequence

from mtl_ray.geometry import masks
from mtl_ray.sources.json_values import number
from mtl_ray.sources.objects import FoundObject, box_error

Points = list[tuple[float, float]]

_FEWEST, _MOST = 12, 720
"""Limits of the number of corners of a circle; the error is at most a pixel."""
_FARTHEST_PX = 1e6
_LONGEST_PX = 5e6
"""Outlines are drawn pixel by pixel, so longer ones are invalid."""


def points_of(xs: object, ys: object) -> Points:
    """Points of two lists of coordinates (numbers or texts).

    Raises:
        ValueError: if they are not finite numbers, or differ in number.
    """
    if not isinstance(xs, list) or not isinstance(ys, list):
        raise ValueError("its points are not lists of numbers")
    if len(xs) != len(ys):
        raise ValueError(f"different numbers of x and y: {len(xs)} x and {len(ys)} y")
    found: Points = []
    for given in zip(xs, ys, strict=True):
        x, y = map(number, given)
        if x is None or y is None:
            raise ValueError("a point without finite numbers")
        found.append((x, y))
    return found


def rectangle(points: Points) -> Points:
    """The corners of the upright rectangle around some points."""
    xs, ys = zip(*points, strict=True)
    (x1, y1), (x2, y2) = (min(xs), min(ys)), (max(xs), max(ys))
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def ellipse(
    centre: tuple[float, float], radius_x: float, radius_y: float, angle: float = 0.0
) -> Points:
    """Corners of an ellipse whose first radius has the direction ``angle`` (radians, from x to y).

    Raises:
        ValueError: if a radius is larger than any image.
    """
    longest = max(radius_x, radius_y, 1.0)
    if longest > _FARTHEST_PX:
        raise ValueError(f"larger than any image: a radius of {longest:g} pixels")
    number_of_corners = min(_MOST, max(_FEWEST, math.ceil(math.pi / math.acos(1 - 1 / longest))))
    turns = [2 * math.pi * step / number_of_corners for step in range(number_of_corners)]
    local = [(radius_x * math.cos(turn), radius_y * math.sin(turn)) for turn in turns]
    cos, sin = math.cos(angle), math.sin(angle)
    return [(centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos) for x, y in local]


def check_reach(points: Points) -> None:
    """Raises a ValueError if a polygon is too far away or too long to be drawn."""
    if any(abs(value) > _FARTHEST_PX for point in points for value in point):
        raise ValueError(f"larger than any image: a point beyond {_FARTHEST_PX:g} pixels")
    length = sum(
        math.dist(first, second)
        for first, second in zip(points, [*points[1:], *points[:1]], strict=True)
    )
    if length > _LONGEST_PX:
        raise ValueError(f"larger than any image: an outline of {length:g} pixels")


def object_of_polygons(
    name: str, class_index: int, polygons: Sequence[Points], height: int, width: int
) -> FoundObject:
    """The object of some polygons: the union of them as mask, its area, and the box around all
    corners.

    An object with an invalid box has no mask; ``to_instances`` skips it.

    Raises:
        ValueError: if a polygon has fewer than three corners or is larger than any image.
    """
    for polygon in polygons:
        if len(polygon) < 3:
            raise ValueError(f"too few points: a polygon of {len(polygon)}")
        check_reach(polygon)
    xs, ys = zip(*(point for polygon in polygons for point in polygon), strict=True)
    box = (min(xs), min(ys), max(xs), max(ys))
    if box_error(box, height, width):
        return FoundObject(name=name, box_xyxy=box, class_index=class_index)
    mask = masks.from_polygons(
        [[value for point in polygon for value in point] for polygon in polygons], height, width
    )
    return FoundObject(
        name=name,
        box_xyxy=box,
        class_index=class_index,
        area=float(masks.area(mask, height, width)),
        mask=mask,
    )
