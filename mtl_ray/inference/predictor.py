"""The one face of everything that predicts: a torch checkpoint, a bundle, an HTTP endpoint."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.frame import Frame, place
from mtl_ray.inputs.image import Canvas
from mtl_ray.samples import Vocabulary
from mtl_ray.tasks.task import AnyHead, HeadKind

Predictions = Mapping[str, Any]
"""By head name, each the prediction of its task (``tasks/*/decode.py``), on the original image."""

Arrays = Mapping[str, Mapping[str, NDArray[Any]]]
"""By head name, then by the names that ``decode`` takes; batch first."""


class Predictor(Protocol):
    """Predicts on original images; placing them on the canvas and the way back are its own business.

    Attributes:
        heads: of each head that predicts its config, or what is known of it, by name.
        vocabulary: what the numbers mean.
        canvas: the frame rule.
    """

    vocabulary: Vocabulary
    canvas: Canvas

    @property
    def heads(self) -> Mapping[str, HeadKind]: ...  # noqa: D102

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Predictions]:
        """Predictions for each image, (H, W, 3) uint8 RGB as shown, all sizes allowed, in order."""
        ...


Run = Callable[[NDArray[np.uint8], Sequence[Frame]], Arrays]
"""Takes canvases uint8 (B, H, W, 3) and where their images lie, gives the arrays of the heads."""


def predict_in_batches(
    images: Sequence[NDArray[np.uint8]], canvas: Canvas, heads: Mapping[str, AnyHead], run: Run, batch: int
) -> list[Predictions]:
    """Places images of any size, runs the network on up to ``batch`` of them at a time, and decodes.

    Every predictor that has the network at hand goes through here, so that a checkpoint and its bundle differ in ``run`` only.
    """
    found: list[Predictions] = []
    for start in range(0, len(images), batch):
        placed = [place(image, canvas) for image in images[start : start + batch]]
        frames = [frame for _, frame in placed]
        arrays = run(np.stack([pixels for pixels, _ in placed]), frames)
        found += [decode_one(arrays, i, frame, heads) for i, frame in enumerate(frames)]
    return found


def decode_one(arrays: Arrays, index: int, frame: Frame, heads: Mapping[str, AnyHead]) -> Predictions:
    """Decodes image ``index`` of a batch, all heads."""
    return {name: decode_head(arrays[name], index, frame, head) for name, head in heads.items()}


def decode_head(arrays: Mapping[str, NDArray[Any]], index: int, frame: Frame, head: AnyHead) -> Any:
    """Decodes image ``index`` of a batch, one head."""
    return head.task.decode({field: values[index] for field, values in arrays.items()}, frame, head)
