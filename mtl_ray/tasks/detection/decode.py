"""From the arrays of a detection head to boxes on the original image."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.frame import Frame
from mtl_ray.tasks.detection.suppress import select
from mtl_ray.tasks.difference import Fields

if TYPE_CHECKING:
    from mtl_ray.tasks.detection.config import Selection


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Detections:
    """The prediction of one image: N objects, best first.

    Attributes:
        boxes_xyxy: (N, 4) float32, pixels of the original image.
        scores: (N,) float32 in [0, 1].
        classes: (N,) int64, indices into ``Vocabulary.instances``.
        masks: N COCO run-length encodings of (height, width), or None.
        keypoints: (N, K, 3) float32 as x, y, score, or None.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    masks: tuple[bytes, ...] | None = None
    keypoints: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.scores)


class SelectingHead(Protocol):
    """A head whose config has the options of suppression."""

    @property
    def select(self) -> "Selection": ...  # noqa: D102


def decode(arrays: Fields, frame: Frame, head: SelectingHead) -> Detections:
    """Brings boxes from the canvas back to the image, leaving out padding and boxes of which nothing lies on the image.

    Args:
        arrays: ``boxes`` (K, 4) canvas pixels, ``scores`` (K,) and ``classes`` (K,), padded with score 0; or, of a bundle of
            the layout ``raw``, ``candidates`` float32 (N, 5 + C): box, objectness, class scores, not yet suppressed.
        frame: where the image lies on the canvas.
        head: its ``select`` says how candidates are chosen.
    """
    if "candidates" in arrays:
        boxes, scores, classes = select(np.asarray(arrays["candidates"], np.float32), head.select)
    else:
        boxes, scores, classes = (np.asarray(arrays[name]) for name in ("boxes", "scores", "classes"))
    boxes = frame.boxes_to_image(boxes.astype(np.float32))
    kept = (scores > 0) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    order = np.flatnonzero(kept)
    order = order[np.argsort(-scores[order], kind="stable")]
    return Detections(boxes_xyxy=boxes[order], scores=scores[order].astype(np.float32), classes=classes[order].astype(np.int64))
