"""Parses a YOLO label file: "class cx cy w h" for a box, "class x1 y1 x2 y2 x3 y3 ..." for a
polygon, relative to the image size.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mtl_ray.geometry import masks
from mtl_ray.sources.class_names import MOST_CLASSES
from mtl_ray.sources.objects import FoundObject
from mtl_ray.sources.source import SkippedItem, unknown_class

_OF_A_BOX = 5
_OF_A_TRIANGLE = 7
_FAR = 100.0
"""Larger relative coordinates are invalid."""


@dataclass(frozen=True, slots=True)
class LineRule:
    """How the lines of a dataset are read.

    Attributes:
        classes: the class index of each class number.
        confidence: whether boxes have a sixth number, which is ignored.
    """

    classes: Sequence[int]
    confidence: bool = False


def has_polygon(content: bytes) -> bool:
    """Whether any line of a label file is a polygon."""
    return any(len(line.split()) >= _OF_A_TRIANGLE for line in content.splitlines())


def has_confidences(contents: Iterable[bytes]) -> bool:
    """Whether all lines of a dataset's label files have six numbers, the sixth in [0, 1]."""
    lines = [
        numbers
        for content in contents
        for line in content.splitlines()
        if (numbers := _numbers(line))
    ]
    return bool(lines) and all(
        len(numbers) == _OF_A_BOX + 1 and 0 <= numbers[-1] <= 1 for numbers in lines
    )


def _numbers(line: bytes) -> list[float]:
    """The numbers of a line; empty if it has something else."""
    try:
        return [float(field) for field in line.split()]
    except ValueError:
        return []


def class_numbers(content: bytes) -> set[int]:
    """The class numbers in a label file, also if written as decimals (``1.0``)."""
    found = (numbers[0] for line in content.splitlines() if (numbers := _numbers(line)))
    return {int(number) for number in found if 0 <= number < MOST_CLASSES and number == int(number)}


def yolo_objects(
    text: str, file: str, rule: LineRule, height: int, width: int
) -> tuple[list[FoundObject], list[SkippedItem]]:
    """The objects of a label file, and a SkippedItem for each invalid line.

    Args:
        text: content of the file.
        file: name of the file, for skipped items.
        rule: how lines are read.
        height: of the image in pixels.
        width: of the image in pixels.
    """
    found, skipped = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(_object(line.split(), f"line {number}", rule, height, width))
        except ValueError as error:
            skipped.append(SkippedItem(file, f"line {number}", str(error)))
    return found, skipped


def _object(fields: list[str], name: str, rule: LineRule, height: int, width: int) -> FoundObject:
    values = _values(fields, rule)
    number = int(values[0])
    if number != values[0] or not 0 <= number < len(rule.classes):
        raise ValueError(unknown_class(fields[0][:40]))
    if len(values) == _OF_A_BOX:
        _, x, y, half_width, half_height = (*values[:3], values[3] / 2, values[4] / 2)
        box = (
            (x - half_width) * width,
            (y - half_height) * height,
            (x + half_width) * width,
            (y + half_height) * height,
        )
        return FoundObject(name=name, box_xyxy=box, class_index=rule.classes[number])
    if max(map(abs, values[1:])) > _FAR:
        raise ValueError("its points lie far outside the image")
    xs, ys = [value * width for value in values[1::2]], [value * height for value in values[2::2]]
    mask = masks.from_polygons(
        [[value for point in zip(xs, ys, strict=True) for value in point]], height, width
    )
    area = float(masks.area(mask, height, width))
    box = (min(xs), min(ys), max(xs), max(ys))
    return FoundObject(
        name=name, box_xyxy=box, class_index=rule.classes[number], area=area, mask=mask
    )


def _values(fields: list[str], rule: LineRule) -> list[float]:
    """The numbers of a line, without a confidence.

    Raises:
        ValueError: if they are not an object.
    """
    try:
        values = [float(field) for field in fields]
    except ValueError:
        raise ValueError("has something else than numbers") from None
    if not all(map(math.isfinite, values)):
        raise ValueError("has numbers that are not finite")
    if rule.confidence and len(values) == _OF_A_BOX + 1:
        return values[:_OF_A_BOX]
    if len(values) != _OF_A_BOX and (len(values) < _OF_A_TRIANGLE or len(values) % 2 == 0):
        raise ValueError(
            "a box has five numbers, a polygon a class and at least three points: the line has "
            f"{len(values)}"
        )
    return values
