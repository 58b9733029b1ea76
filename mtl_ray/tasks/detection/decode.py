"""From the arrays of a detection head to boxes on the original image; suppression for bundles of
the layout ``raw``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.frame import Frame
from mtl_ray.tasks.detection.mask_decode import decode_masks
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


class SelectingHead(Protocol):
    """A head whose config has the options of suppression."""

    @property
    def select(self) -> "Selection": ...  # noqa: D102


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
        boxes, scores, classes = select_candidates(
            np.asarray(arrays["candidates"], np.float32), head.select
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


Chosen = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
"""Boxes (K, 4), scores (K,), classes (K,); best first."""


def select_candidates(candidates: NDArray[np.float32], rule: "Selection") -> Chosen:
    """Selects detections from candidates, equal to ``candidates.select_detections`` in the network.

    Args:
        candidates: (N, 5 + C) float32 as x1, y1, x2, y2, objectness, class scores; a box's score
            for a class is the product.
        rule: thresholds and how many to keep.
    """
    joint = candidates[:, 4:5] * candidates[:, 5:]
    best = np.argsort(-joint.max(axis=1, initial=0), kind="stable")[
        : max(rule.candidates, rule.max_detections)
    ]
    boxes, joint = candidates[best, :4], joint[best]
    classes, rows = np.nonzero((joint > rule.score_threshold).T)
    scores = joint[rows, classes]
    # np.nonzero gives classes in ascending order
    groups = np.split(np.arange(len(classes)), np.flatnonzero(np.diff(classes)) + 1)
    kept = [group[suppress_boxes(boxes[rows[group]], scores[group], rule)] for group in groups]
    left = np.sort(np.concatenate([np.empty(0, np.int64), *kept]))
    chosen = left[np.argsort(-scores[left], kind="stable")][: rule.max_detections]
    return boxes[rows[chosen]], scores[chosen], classes[chosen].astype(np.int64)


def suppress_boxes(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], rule: "Selection"
) -> NDArray[np.int64]:
    """Indices of the boxes (N, 4) that no better one overlaps by more than the IoU threshold, best
    first.
    """
    order = np.argsort(-scores, kind="stable")
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept: list[int] = []
    while order.size and len(kept) < rule.max_detections:
        first, order = order[0], order[1:]
        kept.append(int(first))
        corner = np.minimum(boxes[first, 2:], boxes[order, 2:]) - np.maximum(
            boxes[first, :2], boxes[order, :2]
        )
        shared = np.prod(np.maximum(corner, 0), axis=1)
        order = order[~(shared > rule.iou_threshold * (areas[first] + areas[order] - shared))]
    return np.array(kept, np.int64)
