"""From the arrays of a segmentation head to a class map of the original image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.frame import Frame, map_to_image
from mtl_ray.tasks.difference import Fields


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SemanticMap:
    """The prediction of one image: a class for each pixel.

    Attributes:
        classes: (height, width) uint8, the class index of each pixel of the original image.
    """

    classes: NDArray[np.uint8]


def decode_class_map(arrays: Fields, frame: Frame) -> SemanticMap:
    """Maps ``classes`` uint8 (H, W), or the best of ``logits`` (C, H, W), from the canvas to the
    pixels of the image (nearest neighbour).
    """
    return SemanticMap(classes=map_to_image(class_map(arrays), frame))


def class_map(arrays: Fields) -> NDArray[np.uint8]:
    """The class of each pixel of the canvas, (H, W)."""
    if "logits" in arrays:
        return np.asarray(np.argmax(arrays["logits"], axis=0), np.uint8)
    return np.asarray(arrays["classes"], np.uint8)
