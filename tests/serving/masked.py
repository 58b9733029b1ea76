"""A predictor whose boxes have masks: ellipses in them, each with a hole in its middle."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mtl_ray.geometry.masks import encode_rle
from mtl_ray.inference.bundle import BundlePredictor
from mtl_ray.inference.predictor import Predictions
from mtl_ray.inputs.input import AnyCanvas
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.task import HeadKind


def ring(box_xyxy: Sequence[float], height: int, width: int) -> bytes:
    """The mask of a box."""
    x1, y1, x2, y2 = box_xyxy
    y, x = np.mgrid[:height, :width] + 0.5
    away = ((x - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1)) ** 2
    return encode_rle((away < 0.25) & (away > 0.02))


class MaskedPredictor:
    """The predictions of a bundle with the head ``boxes``, with masks.

    Args:
        uri: of the bundle.
        moved: by how many pixels masks lie right of their boxes.
    """

    def __init__(self, uri: str, moved: float = 0.0) -> None:
        self.bundle, self.moved = BundlePredictor(uri, threads=1), moved
        self.vocabulary: Vocabulary = self.bundle.vocabulary
        self.heads: Mapping[str, HeadKind] = self.bundle.heads
        self.canvas: AnyCanvas = self.bundle.canvas
        self.plugins: tuple[str, ...] = ()

    def predict(self, raws: Sequence[Any]) -> list[Predictions]:
        """See ``Predictor``."""
        found = []
        for raw, predictions in zip(raws, self.bundle.predict(raws), strict=True):
            boxes = predictions["boxes"]
            at = boxes.boxes_xyxy + np.array([self.moved, 0, self.moved, 0], np.float32)
            masks = tuple(ring(box, *raw.shape[:2]) for box in at.tolist())
            found.append({**predictions, "boxes": replace(boxes, masks=masks)})
        return found
