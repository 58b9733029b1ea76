"""Boxes as arrays: xyxy in pixels, x2 and y2 exclusive."""

import numpy as np
from numpy.typing import NDArray


def areas(boxes_xyxy: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N,) float32 square pixels of (N, 4) boxes."""
    return ((boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])).astype(
        np.float32
    )


def clip(boxes_xyxy: NDArray[np.floating], height: int, width: int) -> NDArray[np.floating]:
    """(N, 4) boxes clipped to an image of (height, width) pixels; no box is dropped."""
    return np.asarray(np.clip(boxes_xyxy, 0, np.array([width, height] * 2, boxes_xyxy.dtype)))


def from_xywh(boxes_xywh: NDArray[np.floating]) -> NDArray[np.floating]:
    """(N, 4) x, y of the top left corner, width, height (COCO) -> xyxy."""
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)


def from_centres(boxes_cxcywh: NDArray[np.floating]) -> NDArray[np.floating]:
    """(N, 4) x, y of the centre, width, height (YOLO) -> xyxy."""
    half = boxes_cxcywh[:, 2:] / 2
    return np.concatenate([boxes_cxcywh[:, :2] - half, boxes_cxcywh[:, :2] + half], axis=1)


def iou_matrix(
    boxes_xyxy: NDArray[np.floating], others_xyxy: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(N, M) float64 intersection over union of (N, 4) with (M, 4) boxes; 0 where both are
    empty.
    """
    first, second = boxes_xyxy.astype(np.float64)[:, None], others_xyxy.astype(np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(
        first[..., :2], second[..., :2]
    )
    common = sides.clip(min=0).prod(axis=-1)
    union = (
        (first[..., 2:] - first[..., :2]).prod(axis=-1)
        + (second[..., 2:] - second[..., :2]).prod(axis=-1)
        - common
    )
    return np.asarray(
        np.divide(common, union, out=np.zeros_like(common), where=union > 0), np.float64
    )
