"""From the mask arrays of a detection head to run-length encodings on the original image.

A head predicts masks in one of two frames:

* ``box``: a grid over the box of each detection, as Mask R-CNN does (He et al. 2017, section 3.1).
* ``canvas``: a map over the whole canvas, as heads with dynamic kernels do (Tian et al. 2020,
  "Conditional Convolutions for Instance Segmentation").
"""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mtl_ray.geometry.masks import encode_part
from mtl_ray.inputs.frame import Frame

MaskFrame = Literal["box", "canvas"]
THRESHOLD = 0.5
"""Least probability of a pixel of an object."""
_SURE = 1e-7
"""Probabilities are kept this far from 0 and 1, so that their logits are finite."""


@runtime_checkable
class MaskFraming(Protocol):
    """A head whose config says in which frame its masks are."""

    @property
    def mask_frame(self) -> MaskFrame:
        """See the module."""
        ...


def mask_frame_of(head: object) -> MaskFrame | None:
    """The frame of the masks of a head's config; None if it has none."""
    return head.mask_frame if isinstance(head, MaskFraming) else None


def decode_masks(
    masks: NDArray[np.float32], boxes_xyxy: NDArray[np.float32], frame: Frame, head: object
) -> tuple[bytes, ...]:
    """The masks of an image's detections on the original image.

    Args:
        masks: (N, h, w) probabilities in the frame of the head.
        boxes_xyxy: (N, 4) of the detections, canvas pixels, not clipped.
        frame: of the image on the canvas.
        head: its config, a ``MaskFraming``.

    Returns:
        N COCO run-length encodings of (height, width).
    """
    assert isinstance(head, MaskFraming), "a head with masks says their frame (mask_frame)"
    masks = np.asarray(masks, np.float32)
    if head.mask_frame == "canvas":
        return paste_canvas_masks(masks, frame)
    scale = np.array([frame.scale_x, frame.scale_y] * 2)
    offset = np.array([frame.offset_x, frame.offset_y] * 2)
    boxes = (boxes_xyxy.astype(np.float64) - offset) / scale  # (N, 4) image px
    return tuple(
        paste_box_mask(mask, box, frame.height, frame.width)
        for mask, box in zip(masks, boxes, strict=True)
    )


def paste_box_mask(
    mask: NDArray[np.float32], box_xyxy: NDArray[np.float64], height: int, width: int
) -> bytes:
    """A mask over a box, sampled at the centres of the pixels (bilinear, 0 outside of the grid) and
    compared with ``THRESHOLD``.

    Only pixels whose centre is in the box can reach the threshold: at the edge of the box half of
    the weight is on zeros.

    Args:
        mask: (h, w) probabilities; the centre of cell 0 lies half a cell inside of the box.
        box_xyxy: (4,) image pixels; without area or outside of the image the result is empty.
        height: of the image.
        width: of the image.

    Returns:
        The COCO run-length encoding of (height, width).
    """
    x1, y1, x2, y2 = box_xyxy.tolist()
    none = np.zeros((0, 0), np.bool_)
    if not (x2 > x1 and y2 > y1):
        return encode_part(none, 0, 0, height, width)
    columns, rows = _pixels(x1, x2, width), _pixels(y1, y2, height)
    if not columns.size or not rows.size:
        return encode_part(none, 0, 0, height, width)
    x = _samples(columns, x1, x2, mask.shape[1])
    y = _samples(rows, y1, y2, mask.shape[0])
    padded = np.pad(mask, 1)
    tall = padded[y.first] * (1 - y.share)[:, None] + padded[y.first + 1] * y.share[:, None]
    values = tall[:, x.first] * (1 - x.share) + tall[:, x.first + 1] * x.share  # (rows, columns)
    return encode_part(values >= THRESHOLD, int(rows[0]), int(columns[0]), height, width)


def _pixels(low: float, high: float, length: int) -> NDArray[np.int64]:
    """The pixels of a side of ``length`` whose centres lie in [low, high]."""
    low, high = max(low, 0.0), min(high, float(length))  # also for infinite ends
    first, last = int(np.ceil(low - 0.5)), int(np.floor(high - 0.5))
    return np.arange(max(first, 0), min(last, length - 1) + 1)


class _Samples(NamedTuple):
    """Positions between neighbours of a padded axis: the first neighbour int64 (n,), and the
    share of the second float32 (n,).
    """

    first: NDArray[np.int64]
    share: NDArray[np.float32]


def _samples(pixels: NDArray[np.int64], low: float, high: float, cells: int) -> _Samples:
    """Where the centres of pixels in [low, high] lie on that axis of the padded mask."""
    # cell 0 of the mask is cell 1 of the padded one
    at = (pixels + 0.5 - low) / (high - low) * cells + 0.5
    first = np.clip(np.floor(at).astype(np.int64), 0, cells)
    return _Samples(first, (at - first).astype(np.float32))


def paste_canvas_masks(masks: NDArray[np.float32], frame: Frame) -> tuple[bytes, ...]:
    """Masks over the whole canvas: their logits are upsampled to the canvas, and its valid part to
    the image (both bilinear, as the published heads do); positive logits are the object.

    Pixels of the image that the canvas does not show are empty.

    Args:
        masks: (N, h, w) probabilities.
        frame: of the image on the canvas.

    Returns:
        N COCO run-length encodings of (height, width).
    """
    if not len(masks):
        return ()
    cells_h, cells_w = masks.shape[1:]
    upsample_y = _weights(frame.canvas_height, cells_h)  # (canvas height, h)
    upsample_x = _weights(frame.canvas_width, cells_w)
    top, to_y = _shown(frame.height, frame.scale_y, frame.offset_y, frame.valid_height)
    left, to_x = _shown(frame.width, frame.scale_x, frame.offset_x, frame.valid_width)
    weights_y, weights_x = _blended(upsample_y, to_y), _blended(upsample_x, to_x)  # (rows, h), ...
    found = []
    for mask in masks:
        part, row, column = _positive_part(mask, weights_y, weights_x)
        found.append(encode_part(part, top + row, left + column, frame.height, frame.width))
    return tuple(found)


def _positive_part(
    mask: NDArray[np.float32], weights_y: NDArray[np.float32], weights_x: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], int, int]:
    """The object in the smallest part of the image that can hold it, and its first row and column.

    An interpolated logit is positive only where a cell with weight is.
    """
    y, x = np.nonzero(mask > THRESHOLD)  # cells of the object
    rows, columns = _touched(weights_y, np.unique(y)), _touched(weights_x, np.unique(x))
    of_y, of_x = weights_y[rows], weights_x[columns]
    if not of_y.size or not of_x.size:
        return np.zeros((0, 0), np.bool_), 0, 0
    read_y, read_x = _read(of_y), _read(of_x)
    kept = np.clip(mask[read_y, read_x], _SURE, 1 - _SURE)
    logits = np.log(kept) - np.log1p(-kept)
    return of_y[:, read_y] @ logits @ of_x[:, read_x].T > 0, rows.start, columns.start


def _touched(weights: NDArray[np.float32], cells: NDArray[np.int64]) -> slice:
    """The pixels from the first to the last one in which some of the cells have weight."""
    found = np.flatnonzero(weights[:, cells].any(axis=1))
    return slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0)


def _read(weights: NDArray[np.float32]) -> slice:
    """The cells from the first to the last one with weight."""
    found = np.flatnonzero(weights.any(axis=0))
    return slice(int(found[0]), int(found[-1]) + 1)


def _shown(length: int, scale: float, offset: float, valid: int) -> tuple[int, NDArray[np.float64]]:
    """The first pixel of the image that the canvas shows along an axis, and the positions of all
    shown ones on the canvas, 0 at the centre of its first pixel.
    """
    centres = np.linspace(0.5, length - 0.5, length) * scale + offset
    shown = np.flatnonzero((centres > 0) & (centres < valid))
    return int(shown[0]), centres[shown] - 0.5


def _weights(pixels: int, cells: int) -> NDArray[np.float32]:
    """(pixels, cells): bilinear upsampling along one axis, without aligned corners."""
    return _blended(
        np.eye(cells, dtype=np.float32), (np.arange(pixels) + 0.5) * cells / pixels - 0.5
    )


def _blended(rows: NDArray[np.float32], at: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n, C): rows (R, C) interpolated at positions (n,), those outside of [0, R - 1] clipped."""
    at = np.clip(at, 0, len(rows) - 1)
    first = np.floor(at).astype(np.int64)
    second = np.minimum(first + 1, len(rows) - 1)
    share = (at - first).astype(np.float32)[:, None]
    return rows[first] * (1 - share) + rows[second] * share
