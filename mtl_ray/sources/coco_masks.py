"""Masks of COCO annotations: polygons, plain and compressed run lengths; invalid parts are dropped.

Polygons are a list of parts, each ``x, y, x, y, ...``. Also accepted: one part without the outer
list, an extra list, and parts that are lists of points ``[x, y]``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_ray.geometry import masks
from mtl_ray.sources.json_values import number, shown, whole
from mtl_ray.sources.orientation import OTHER_MASK_SIZE

PART_DROPPED = "part of a mask dropped"
"""General part of the note on an object with an invalid part of its mask."""
_FARTHEST = 10
"""Polygons with coordinates above this multiple of the image size (at least 1000) are invalid:
filling takes too long.
"""


def mask_of(segmentation: Any, height: int, width: int) -> tuple[bytes, str]:
    """The RLE of a mask for an image of this size, and why parts of it were dropped, if any were.

    An empty mask (``[]``, no run lengths) is valid.

    Raises:
        ValueError: if no part of the mask is valid, or it has another size.
    """
    if not segmentation or (isinstance(segmentation, dict) and not segmentation.get("counts")):
        return b"", ""
    if isinstance(segmentation, list):
        polygons, errors = valid_polygons(segmentation, height, width)
        if not polygons:
            raise ValueError(errors[0])
        return masks.from_polygons(
            polygons, height, width
        ), f"{PART_DROPPED}: {errors[0]}" if errors else ""
    if not isinstance(segmentation, dict):
        raise ValueError("neither polygons nor run lengths")
    return _from_run_lengths(segmentation, height, width), ""


def valid_polygons(
    segmentation: Sequence[Any], height: int, width: int
) -> tuple[list[list[float]], list[str]]:
    """The valid polygons, and an error message for each invalid one."""
    farthest = _FARTHEST * max(height, width, 1000)
    polygons, errors = [], []
    for part in _parts(segmentation):
        try:
            polygons.append(_polygon(part, farthest))
        except ValueError as error:
            errors.append(str(error))
    return polygons, errors


def _parts(segmentation: Sequence[Any]) -> Sequence[Any]:
    if not any(isinstance(part, list) for part in segmentation):
        return [segmentation]
    if len(segmentation) >= 3 and all(_is_point(part) for part in segmentation):
        return [segmentation]
    return [
        inner for part in segmentation for inner in (part if _is_list_of_parts(part) else [part])
    ]


def _is_list_of_parts(part: Any) -> bool:
    return (
        isinstance(part, list)
        and bool(part)
        and all(isinstance(inner, list) and not _is_point(inner) for inner in part)
    )


def _is_point(part: Any) -> bool:
    return (
        isinstance(part, list)
        and len(part) == 2
        and not any(isinstance(value, list) for value in part)
    )


def _polygon(part: Any, farthest: float) -> list[float]:
    """One polygon as x, y, x, y, ..."""
    if isinstance(part, list) and part and all(map(_is_point, part)):
        part = [value for point in part for value in point]
    if not isinstance(part, list) or len(part) < 6:
        raise ValueError("a polygon that is not a list of at least three points")
    if len(part) % 2:
        raise ValueError("a polygon with an odd number of coordinates")
    values = [number(value) for value in part]
    found = [value for value in values if value is not None]
    if len(found) < len(values):
        raise ValueError("a polygon with something else than finite numbers")
    if max(map(abs, found)) > farthest:
        raise ValueError("a polygon that reaches far beyond the image")
    return found


def _from_run_lengths(segmentation: Mapping[str, Any], height: int, width: int) -> bytes:
    size, counts = segmentation.get("size"), segmentation["counts"]
    if not isinstance(size, list) or [whole(side) for side in size] != [height, width]:
        raise ValueError(
            f"{OTHER_MASK_SIZE}: height and width {shown(size)}, not {[height, width]}"
        )
    if isinstance(counts, str) and counts.isascii():
        return masks.from_compressed(counts.encode(), height, width)
    return mask_of_counts(counts, height, width)


def mask_of_counts(counts: Any, height: int, width: int) -> bytes:
    """The RLE of plain run lengths, written as integers, floats or texts.

    Raises:
        ValueError: if they are not a list of whole numbers, or do not add up to the mask's size.
    """
    lengths = [whole(count) for count in counts] if isinstance(counts, list) else []
    found = [length for length in lengths if length is not None]
    if not found or len(found) < len(lengths):
        raise ValueError("neither polygons nor run lengths")
    return masks.from_counts(found, height, width)
