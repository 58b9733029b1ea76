"""From the arrays of a classification head to the prediction of the image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_ray.tasks.difference import Fields


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelScores:
    """The prediction of one image: a score for each class.

    Attributes:
        scores: (C,) float32, one for each class of ``Vocabulary.labels``; their sum is 1 if
            ``exclusive``.
        exclusive: True if an image has exactly one of the classes.
    """

    scores: NDArray[np.float32]
    exclusive: bool


def decode_labels(arrays: Fields, exclusive: bool) -> LabelScores:
    """``scores`` float32 (C,) unchanged; the place of the image on the canvas does not matter."""
    return LabelScores(scores=np.asarray(arrays["scores"], np.float32), exclusive=exclusive)
