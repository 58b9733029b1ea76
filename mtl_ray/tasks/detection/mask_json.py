"""A mask in the JSON of a response: run lengths or polygons."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_ray.geometry.masks import decode_rle, encode_part, from_compressed, from_polygons
from mtl_ray.geometry.outlines import polygons_of
from mtl_ray.tasks.response import MaskForm

MASK_SCHEMA: Mapping[str, Any] = {
    "description": "Of heads with masks: COCO run lengths of the image's size, or with "
    "?masks=polygon polygons x, y, x, y, ... in pixels; ?masks=none leaves it out.",
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "size": {"type": "array", "items": {"type": "integer"}},
                "counts": {"type": "string"},
            },
            "required": ["size", "counts"],
        },
        {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
    ],
}


def mask_to_json(mask: bytes, form: MaskForm, size: Mapping[str, int] | None) -> Any:
    """A COCO run-length encoding in one of the forms.

    Args:
        mask: of an image of ``size``; b"" for an object without a mask.
        form: rle or polygon.
        size: height and width; without it, the run lengths alone are the answer.
    """
    if size is None:
        assert form == "rle", "polygons need the size of the image"
        return mask.decode()
    height, width = size["height"], size["width"]
    if form == "polygon":
        return polygons_of(decode_rle(mask, height, width))
    return {"size": [height, width], "counts": mask.decode()}


def mask_from_json(content: Any, size: Mapping[str, int] | None) -> bytes:
    """The inverse of ``mask_to_json``, for untrusted JSON.

    Raises:
        ValueError, TypeError, AttributeError, KeyError: if it is no mask of an image of this size.
    """
    if isinstance(content, str) and size is None:
        return content.encode()
    hw = None if size is None else (size["height"], size["width"])
    if isinstance(content, Mapping):
        height, width = content["size"]
        if hw not in (None, (height, width)):
            raise ValueError(f"a mask of {width} x {height} pixels, the image has another size")
        hw, content = (int(height), int(width)), content["counts"]
    if hw is None:
        raise ValueError("the size of a mask is not known")
    if not isinstance(content, str):
        return _from_polygons(content, *hw)
    return from_compressed(content.encode(), *hw) if content else b""


def _from_polygons(polygons: Any, height: int, width: int) -> bytes:
    if not isinstance(polygons, list) or not all(
        isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
        for polygon in polygons
    ):
        raise ValueError("a mask is neither run lengths nor a list of polygons")
    if not polygons:
        return encode_part(np.zeros((0, 0), np.bool_), 0, 0, height, width)
    if not np.isfinite(np.concatenate([np.array(each, np.float64) for each in polygons])).all():
        raise ValueError("a polygon is not made of finite numbers")
    return from_polygons(polygons, height, width)
