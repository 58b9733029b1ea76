"""Converts annotations of images with an EXIF orientation to the image as shown.

Some programs measure the image as stored and draw on it as shown, others ignore EXIF.
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
"""Reads objects and skipped items for an image of this height and width."""

TURNED = "turned by EXIF"
"""General part of the note on an image whose stated size is its size before the EXIF rotation."""
OTHER_SIZE = "annotated as an image of another size"
OTHER_MASK_SIZE = "run lengths of a mask of another size than the image's"
_TIFF_ORIENTATION = 0x0112
_TOLERANCE_PX = 1.0
"""Tolerance of a box beyond its image: programs round, and some count from 1."""


def objects_as_shown(
    parse: Parse, image: EncodedImage, stated: tuple[int, int] | None, file: str
) -> Parsed:
    """The objects in the frame of the image as shown.

    Args:
        parse: reads the annotations.
        image: the image.
        stated: height and width that the annotations state; None if they state none.
        file: name of the image or annotation file, for skipped items.

    Raises:
        UnreadableError: if the annotations state another size than that of the image; or the size
            before the EXIF rotation, and their coordinates fit both frames or neither.
    """
    shown = (image.height, image.width)
    if stated is None or stated == shown:
        return parse(*shown)
    sizes = f"{stated[1]} x {stated[0]} pixels, the file is {image.width} x {image.height}"
    orientation = _orientation(image.data) if stated == shown[::-1] else 1
    if orientation < 5:
        raise UnreadableError(file, f"{OTHER_SIZE}: {sizes}")
    as_shown, as_stored = parse(*shown), parse(*stated)
    fits = _fits(as_shown, *shown), _fits(as_stored, *stated)
    if fits == (True, True) and (as_shown[0] or as_stored[0]):
        raise UnreadableError(
            file, f"{TURNED}: annotated as {sizes} as shown, and its objects fit both"
        )
    if fits == (False, False):
        raise UnreadableError(
            file, f"{TURNED}: annotated as {sizes} as shown, and its objects fit neither"
        )
    if fits[0]:
        found, skipped = as_shown
        return found, [
            *skipped,
            SkippedItem(
                file,
                "",
                f"{TURNED}: its objects fit the image as shown and are not changed",
                note=True,
            ),
        ]
    found, skipped = [_rotated(item, orientation, *stated) for item in as_stored[0]], as_stored[1]
    return found, [
        *skipped,
        SkippedItem(
            file,
            "",
            f"{TURNED}: its objects fit the image as stored and are rotated with it",
            note=True,
        ),
    ]


def _orientation(data: bytes) -> int:
    """The EXIF orientation, 1 to 8, of a valid image."""
    opened = open_image(data, NO_LIMIT)
    if opened.format != "TIFF":
        return orientation_of(opened, data)
    found = opened.tag_v2.get(_TIFF_ORIENTATION, 1)  # type: ignore[attr-defined]
    return found if isinstance(found, int) else 1


def _fits(parsed: Parsed, height: int, width: int) -> bool:
    """Whether all objects lie in an image of this size and no mask has another size."""
    found, skipped = parsed
    corners = [
        point
        for item in found
        for point in (item.box_xyxy[:2], item.box_xyxy[2:])
        if all(map(math.isfinite, point))
    ]
    corners += [(x, y) for item in found for x, y, seen in item.keypoints or () if seen > 0]
    inside = all(
        -_TOLERANCE_PX <= x <= width + _TOLERANCE_PX
        and -_TOLERANCE_PX <= y <= height + _TOLERANCE_PX
        for x, y in corners
    )
    return inside and not any(OTHER_MASK_SIZE in item.reason for item in skipped)


def _rotated(item: FoundObject, orientation: int, height: int, width: int) -> FoundObject:
    """An object of an image stored with this height and width, in the frame after the
    orientation (5 to 8).
    """

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            height - y if orientation in (6, 7) else y,
            width - x if orientation in (7, 8) else x,
        )

    (x1, y1), (x2, y2) = place(*item.box_xyxy[:2]), place(*item.box_xyxy[2:])
    points = item.keypoints and [
        (*place(x, y), seen) if seen > 0 else (0.0, 0.0, 0.0) for x, y, seen in item.keypoints
    ]
    return replace(
        item,
        box_xyxy=(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)),
        mask=_rotated_mask(item.mask, orientation, height, width),
        keypoints=points,
    )


def _rotated_mask(mask: bytes, orientation: int, height: int, width: int) -> bytes:
    if not mask:
        return mask
    down, right = (-1 if orientation in (6, 7) else 1), (-1 if orientation in (7, 8) else 1)
    return masks.encode_rle(
        np.ascontiguousarray(masks.decode_rle(mask, height, width)[::down, ::right].T)
    )
