"""From the arrays of a detection head to boxes on the original image."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.frame import Frame
from mtl_ray.tasks.detection.mask_decode import decode_masks
from mtl_ray.tasks.detection.selection import select_candidates
from mtl_ray.tasks.difference import Fields

if TYPE_CHECKING:
    from mtl_ray.tasks.detection.options import Selection


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

    def select(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "Detections":
        """Some of them, in the order of the indices."""
        chosen = np.flatnonzero(which) if which.dtype == np.bool_ else which
        return Detections(
            boxes_xyxy=self.boxes_xyxy[chosen],
            scores=self.scores[chosen],
            classes=self.classes[chosen],
            masks=None if self.masks is None else tuple(self.masks[i] for i in chosen.tolist()),
            keypoints=None if self.keypoints is None else self.keypoints[chosen],
        )


@runtime_checkable
class SelectingHead(Protocol):
    """A head whose config has the options of suppression."""

    @property
    def select(self) -> "Selection": ...  # noqa: D102


@runtime_checkable
class LevelledHead(SelectingHead, Protocol):
    """A head whose pairs of candidate and class are ranked level by level."""

    def level_sizes(self, canvas_hw: tuple[int, int]) -> tuple[int, ...]:
        """The number of candidates of each level on a canvas of (height, width) pixels."""
        ...


def level_sizes(head: SelectingHead, canvas_hw: tuple[int, int]) -> tuple[int, ...]:
    """Of a head whose candidates are ranked by level, else empty."""
    return head.level_sizes(canvas_hw) if isinstance(head, LevelledHead) else ()


def decode_detections(arrays: Fields, frame: Frame, head: SelectingHead) -> Detections:
    """Maps boxes from the canvas to the image; padding and boxes outside of the image are left out.

    Args:
        arrays: ``boxes`` (K, 4) canvas pixels, ``scores`` (K,) and ``classes`` (K,), padded with
            score 0, and ``masks`` (K, h, w) of a head with masks (``mask_decode``); or, from a
            bundle of the layout ``raw``, ``candidates`` float32 (N, 5 + C): box, objectness, class
            scores, not yet suppressed.
        frame: of the image on the canvas.
        head: its ``select`` has the options of the selection.
    """
    if "candidates" in arrays:
        sizes = level_sizes(head, (frame.canvas_height, frame.canvas_width))
        boxes, scores, classes = select_candidates(
            np.asarray(arrays["candidates"], np.float32), head.select, sizes
        )
    else:
        boxes, scores, classes = (
            np.asarray(arrays[name]) for name in ("boxes", "scores", "classes")
        )
    on_canvas = boxes.astype(np.float32)
    boxes = frame.boxes_to_image(on_canvas)
    kept = (scores > 0) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    order = np.flatnonzero(kept)
    order = order[np.argsort(-scores[order], kind="stable")]
    return Detections(
        boxes_xyxy=boxes[order],
        scores=scores[order].astype(np.float32),
        classes=classes[order].astype(np.int64),
        masks=None
        if "masks" not in arrays
        else decode_masks(arrays["masks"][order], on_canvas[order], frame, head),
    )
