"""The one face of everything that predicts: a torch checkpoint, a bundle, an HTTP endpoint."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.placement import PlacementRule
from mtl_ray.samples import Vocabulary

Predictions = Mapping[str, Any]
"""By head name, each the Prediction of its task (``tasks/*/decode.py``), on the original image."""


class Predictor(Protocol):
    """Predicts on original images; placing them on the canvas and the way back are its own business.

    Attributes:
        heads: the config of each head that predicts, by name.
        vocabulary: what the numbers mean.
        canvas: the placement rule.
    """

    heads: Mapping[str, Any]
    vocabulary: Vocabulary
    canvas: PlacementRule

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Predictions]:
        """Predictions for each image, (H, W, 3) uint8 RGB as shown, all sizes allowed, in order."""
        ...
