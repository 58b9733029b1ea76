"""The lines of a YOLO label file: "class cx cy w h" for a box, "class x1 y1 x2 y2 x3 y3 ..." for a polygon, as shares of the picture."""

import math

from mtl_ray.geometry import masks
from mtl_ray.sources.objects import FoundObject
from mtl_ray.sources.source import Reject

_OF_A_BOX = 5
_OF_A_TRIANGLE = 7


def has_polygon(content: bytes) -> bool:
    """Whether any line of a label file is a polygon."""
    return any(len(line.split()) >= _OF_A_TRIANGLE for line in content.splitlines())


def classes_in(content: bytes) -> set[int]:
    """The class numbers that a label file uses."""
    return {int(fields[0]) for line in content.splitlines() if (fields := line.split()) and fields[0].isdigit()}


def objects(text: str, file: str, num_classes: int, height: int, width: int) -> tuple[list[FoundObject], list[Reject]]:
    """The objects of a label file, and a Reject for each line that is not understood.

    Args:
        text: the file.
        file: what to call it in a reject.
        num_classes: numbers from here on have no name.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
    """
    found, rejects = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(_object(line.split(), f"line {number}", num_classes, height, width))
        except ValueError as error:
            rejects.append(Reject(file, f"line {number}", str(error)))
    return found, rejects


def _object(fields: list[str], name: str, num_classes: int, height: int, width: int) -> FoundObject:
    try:
        values = [float(field) for field in fields]
    except ValueError:
        raise ValueError("has something else than numbers") from None
    if len(values) != _OF_A_BOX and (len(values) < _OF_A_TRIANGLE or len(values) % 2 == 0):
        raise ValueError(f"has {len(values)} numbers; a box has five, a polygon a class and at least three points")
    if not all(map(math.isfinite, values)):
        raise ValueError("has numbers that are not finite")
    class_index = int(values[0])
    if class_index != values[0] or not 0 <= class_index < num_classes:
        raise ValueError(f"its class {fields[0]} is not one of the {num_classes}")
    if len(values) == _OF_A_BOX:
        _, x, y, half_width, half_height = (*values[:3], values[3] / 2, values[4] / 2)
        box = ((x - half_width) * width, (y - half_height) * height, (x + half_width) * width, (y + half_height) * height)
        return FoundObject(name=name, box_xyxy=box, class_index=class_index)
    xs, ys = [value * width for value in values[1::2]], [value * height for value in values[2::2]]
    mask = masks.from_polygons([[value for point in zip(xs, ys, strict=True) for value in point]], height, width)
    area = float(masks.area(mask, height, width))
    return FoundObject(name=name, box_xyxy=(min(xs), min(ys), max(xs), max(ys)), class_index=class_index, area=area, mask=mask)
