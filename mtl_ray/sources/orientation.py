"""Annotations of images that EXIF turns: whichever way round it was annotated, the objects are those of the image as shown.

Some programs measure the image as stored and draw on it as shown, others ignore EXIF altogether.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mtl_ray.geometry import masks
from mtl_ray.inputs.image_file import NO_LIMIT, open_image, orientation_of
from mtl_ray.samples import EncodedImage
from mtl_ray.sources.objects import FoundObject
from mtl_ray.sources.source import SkippedItem, UnreadableError

Parsed = tuple[list[FoundObject], list[SkippedItem]]
Parse = Callable[[int, int], Parsed]
"""Objects, and what is rejected of them, as those of an image of this height and width."""

TURNED = "turned by EXIF"
"""General part of what is said of an image whose stated size is that of its pixels before EXIF turns them."""
OTHER_SIZE = "annotated as an image of another size"
OTHER_MASK_SIZE = "run lengths of a mask of another size than the image's"
_TIFF_ORIENTATION = 0x0112
_TOLERANCE_PX = 1.0
"""So far may a box reach beyond its image: programs round, and some count from 1."""


def objects_as_shown(parse: Parse, image: EncodedImage, stated: tuple[int, int] | None, file: str) -> Parsed:
    """The objects of an image as shown, if the annotations are of this image.

    Args:
        parse: reads the annotations.
        image: the image.
        stated: height and width as the annotations have them; None where they say nothing.
        file: what to call the image or its annotations in a skipped item.

    Raises:
        UnreadableError: if they state another size than the image's, or the size before EXIF turns it and do not tell by their
            places which of the two they are drawn on.
    """
    shown = (image.height, image.width)
    if stated is None or stated == shown:
        return parse(*shown)
    sizes = f"{stated[1]} x {stated[0]} pixels, the file is {image.width} x {image.height}"
    orientation = _orientation(image.data) if stated == shown[::-1] else 1
    if orientation < 5:
        raise UnreadableError(file, f"{OTHER_SIZE}: {sizes}")
    upon_shown, upon_stored = parse(*shown), parse(*stated)
    fits = _fits(upon_shown, *shown), _fits(upon_stored, *stated)
    if fits == (True, True) and (upon_shown[0] or upon_stored[0]):
        raise UnreadableError(file, f"{TURNED}: annotated as {sizes} as shown, and its objects fit both")
    if fits == (False, False):
        raise UnreadableError(file, f"{TURNED}: annotated as {sizes} as shown, and its objects fit neither")
    if fits[0]:
        found, skipped = upon_shown
        return found, [*skipped, SkippedItem(file, "", f"{TURNED}: its objects fit the image as shown and are used as they are", note=True)]
    found, skipped = [_turned(item, orientation, *stated) for item in upon_stored[0]], upon_stored[1]
    return found, [*skipped, SkippedItem(file, "", f"{TURNED}: its objects fit the image as stored and are turned with it", note=True)]


def _orientation(data: bytes) -> int:
    """The EXIF orientation, 1 to 8, of an image that could be opened before."""
    opened = open_image(data, NO_LIMIT)
    if opened.format != "TIFF":
        return orientation_of(opened, data)
    found = opened.tag_v2.get(_TIFF_ORIENTATION, 1)  # type: ignore[attr-defined]
    return found if isinstance(found, int) else 1


def _fits(parsed: Parsed, height: int, width: int) -> bool:
    """Whether all objects lie in an image of this size, and no mask is of another one."""
    found, skipped = parsed
    corners = [point for item in found for point in (item.box_xyxy[:2], item.box_xyxy[2:]) if all(map(math.isfinite, point))]
    corners += [(x, y) for item in found for x, y, seen in item.keypoints or () if seen > 0]
    inside = all(-_TOLERANCE_PX <= x <= width + _TOLERANCE_PX and -_TOLERANCE_PX <= y <= height + _TOLERANCE_PX for x, y in corners)
    return inside and not any(OTHER_MASK_SIZE in item.reason for item in skipped)


def _turned(item: FoundObject, orientation: int, height: int, width: int) -> FoundObject:
    """An object of an image as stored, of this height and width, as the orientation (5 to 8) shows it."""

    def place(x: float, y: float) -> tuple[float, float]:
        return (height - y if orientation in (6, 7) else y, width - x if orientation in (7, 8) else x)

    (x1, y1), (x2, y2) = place(*item.box_xyxy[:2]), place(*item.box_xyxy[2:])
    points = item.keypoints and [(*place(x, y), seen) if seen > 0 else (0.0, 0.0, 0.0) for x, y, seen in item.keypoints]
    return replace(
        item,
        box_xyxy=(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)),
        mask=_turned_mask(item.mask, orientation, height, width),
        keypoints=points,
    )


def _turned_mask(mask: bytes, orientation: int, height: int, width: int) -> bytes:
    if not mask:
        return mask
    down, right = (-1 if orientation in (6, 7) else 1), (-1 if orientation in (7, 8) else 1)
    return masks.encode_rle(np.ascontiguousarray(masks.decode_rle(mask, height, width)[::down, ::right].T))
