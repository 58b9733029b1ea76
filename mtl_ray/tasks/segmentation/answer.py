"""A class map as it goes over the wire: an index PNG, by itself or inside JSON."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from mtl_ray.image_file import NO_LIMIT, load_image, open_image
from mtl_ray.picture_header import PNG
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.segmentation.config import HeadConfig
from mtl_ray.tasks.segmentation.decode import SemanticMap

MAX_ANSWER_PIXELS = 1 << 28
"""A class map of a server may not be larger."""


def answer(prediction: SemanticMap, vocabulary: Vocabulary, score_threshold: float) -> dict[str, Any]:
    """``{"height", "width", "classes": [{"class_label", "class_name", "share"}, ...], "png": base64}``.

    ``classes`` are those that some pixel has, the largest share of the image first; ``png`` is what ``picture`` gives. A class
    map has no scores, so the threshold changes nothing.
    """
    names = vocabulary.classes["semantic"]
    counts = np.bincount(prediction.classes.ravel(), minlength=len(names))
    order = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]]
    return {
        "height": prediction.classes.shape[0],
        "width": prediction.classes.shape[1],
        "classes": [{"class_label": c, "class_name": names[c], "share": float(counts[c] / prediction.classes.size)} for c in order],
        "png": base64.b64encode(picture(prediction)).decode(),
    }


def read_answer(item: Mapping[str, Any], vocabulary: Vocabulary, head: HeadConfig) -> SemanticMap:
    """The way back.

    Raises:
        ValueError: if there is no PNG in it.
    """
    try:
        return read_picture(base64.b64decode(item["png"], validate=True), MAX_ANSWER_PIXELS)
    except (KeyError, binascii.Error) as error:
        raise ValueError("the answer of a segmentation head has no class map under 'png'") from error


def picture(prediction: SemanticMap) -> bytes:
    """One 8-bit channel, (height, width) of the image that was sent; the value of a pixel is its class index."""
    done, data = cv2.imencode(".png", prediction.classes, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return bytes(data)


def read_picture(data: bytes, max_pixels: int = NO_LIMIT) -> SemanticMap:
    """The way back of ``picture``, of at most so many pixels.

    Raises:
        ValueError: if it is no PNG of one 8-bit channel.
    """
    opened = open_image(data, max_pixels) if data.startswith(PNG) else None
    if opened is None or opened.mode != "L":
        raise ValueError("a class map must be a PNG with one channel of 8 bits")
    return SemanticMap(classes=np.array(load_image(opened), np.uint8))
