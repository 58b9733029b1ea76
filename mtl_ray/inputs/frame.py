"""How an original image is put on the network's canvas, and the inverse.

This is the only place that resizes an image for a network: the loader, the evaluator, the export
check and Serve all call ``place``. The rule is written into every checkpoint and bundle.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mtl_ray.inputs.image import Canvas


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Where an image of (height, width) pixels lies on a canvas: x_canvas = x_image * scale_x +
    offset_x, same for y.

    Attributes:
        height, width: pixels of the original image as shown.
        canvas_height, canvas_width: pixels of the canvas.
        scale_x, scale_y: canvas pixels per image pixel.
        offset_x, offset_y: canvas pixels; negative where the image is cut off (crop).
        valid_height, valid_width: the part of the canvas, from its top left corner, that holds
            image.
    """

    height: int
    width: int
    canvas_height: int
    canvas_width: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float
    valid_height: int
    valid_width: int

    def boxes_to_canvas(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 4) float32 image pixels -> canvas pixels, not clipped."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        offset = np.array([self.offset_x, self.offset_y] * 2, np.float32)
        return (boxes_xyxy * scale + offset).astype(np.float32)

    def boxes_to_image(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 4) float32 canvas pixels -> image pixels, clipped to the image."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        offset = np.array([self.offset_x, self.offset_y] * 2, np.float32)
        limit = np.array([self.width, self.height] * 2, np.float32)
        return np.asarray(np.clip((boxes_xyxy - offset) / scale, 0, limit), np.float32)

    def points_to_canvas(self, points_xy: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., 2) float32 image pixels -> canvas pixels."""
        moved = points_xy * np.array([self.scale_x, self.scale_y]) + np.array(
            [self.offset_x, self.offset_y]
        )
        return np.asarray(moved, np.float32)

    def points_to_image(self, points_xy: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., 2) float32 canvas pixels -> image pixels, not clipped."""
        moved = (points_xy - np.array([self.offset_x, self.offset_y])) / np.array(
            [self.scale_x, self.scale_y]
        )
        return np.asarray(moved, np.float32)


def frame_of(height: int, width: int, rule: "Canvas") -> Frame:
    """The Frame that ``rule`` gives an image of (height, width) pixels."""
    canvas_h, canvas_w = rule.height, rule.width
    shown_h, shown_w = height, width
    valid_h, valid_w = canvas_h, canvas_w
    if rule.kind == "letterbox":
        scale = min(canvas_h / height, canvas_w / width)
        valid_h, valid_w = max(1, round(height * scale)), max(1, round(width * scale))
    elif rule.kind == "crop":
        scale = max(canvas_h / height, canvas_w / width)
        shown_h, shown_w = max(1, round(canvas_h / scale)), max(1, round(canvas_w / scale))
    scale_y, scale_x = valid_h / shown_h, valid_w / shown_w
    return Frame(
        height=height,
        width=width,
        canvas_height=canvas_h,
        canvas_width=canvas_w,
        scale_x=scale_x,
        scale_y=scale_y,
        offset_x=-((width - shown_w) // 2) * scale_x,
        offset_y=-((height - shown_h) // 2) * scale_y,
        valid_height=valid_h,
        valid_width=valid_w,
    )


def place(image: NDArray[np.uint8], rule: "Canvas") -> tuple[NDArray[np.uint8], Frame]:
    """Puts an image on the canvas.

    Args:
        image: (H, W, 3) uint8 RGB, the original as shown.
        rule: the canvas and how to fit it.

    Returns:
        (canvas_height, canvas_width, 3) uint8 RGB, contiguous, and where the image lies on it.
    """
    frame = frame_of(image.shape[0], image.shape[1], rule)
    shown = _shown(image, frame)
    resize = resized if rule.kernel == "area" else _bilinear
    return _padded(resize(shown, frame.valid_height, frame.valid_width), frame, rule.pad), frame


def resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """An image (H, W, 3) or (H, W) uint8 of another size, bilinear where it grows, a mean where it
    shrinks.

    Along a side that shrinks by a factor f, ceil(f) bilinear samples go into each pixel. They are
    the covered pixels themselves where f is a whole number. OpenCV's own area interpolation weighs
    the covered pixels also for other f, looks much the same and takes three times as long.
    """
    samples_y, samples_x = -(-image.shape[0] // height), -(-image.shape[1] // width)
    sampled = _bilinear(image, samples_y * height, samples_x * width)
    if samples_y == samples_x == 1:
        return sampled
    return np.asarray(cv2.resize(sampled, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def place_map(classes: NDArray[np.uint8], frame: Frame, fill: int) -> NDArray[np.uint8]:
    """Puts a map of class indices (H, W) uint8 where its image lies (nearest neighbour),
    ``fill`` where there is no image.
    """
    shown = _shown(classes, frame)
    size = frame.valid_width, frame.valid_height
    return _padded(
        np.asarray(cv2.resize(shown, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8),
        frame,
        fill,
    )


def map_to_image(classes: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
    """The inverse of ``place_map``: (canvas_height, canvas_width) uint8 -> (height, width) uint8,
    nearest neighbour.

    Pixels of the original that were cut off (crop) take the class at the nearest edge.
    """
    ys = (np.arange(frame.height) + 0.5) * frame.scale_y + frame.offset_y
    xs = (np.arange(frame.width) + 0.5) * frame.scale_x + frame.offset_x
    rows = np.clip(ys.astype(np.int64), 0, frame.valid_height - 1)
    columns = np.clip(xs.astype(np.int64), 0, frame.valid_width - 1)
    return np.ascontiguousarray(classes[rows[:, None], columns[None, :]])


def _shown(image: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
    """The pixels of the image that the frame shows."""
    top, left = round(-frame.offset_y / frame.scale_y), round(-frame.offset_x / frame.scale_x)
    height, width = (
        round(frame.valid_height / frame.scale_y),
        round(frame.valid_width / frame.scale_x),
    )
    return image[top : top + height, left : left + width]


def _bilinear(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _padded(part: NDArray[np.uint8], frame: Frame, fill: int) -> NDArray[np.uint8]:
    """Puts what is shown, at its size on the canvas, into the top left corner, and fills the
    rest.
    """
    if part.shape[:2] == (frame.canvas_height, frame.canvas_width):
        return np.ascontiguousarray(part)
    canvas = np.full((frame.canvas_height, frame.canvas_width, *part.shape[2:]), fill, np.uint8)
    canvas[: part.shape[0], : part.shape[1]] = part
    return canvas


def sides_on_canvas(
    boxes_xyxy: NDArray[np.float64],
    image: NDArray[np.int64],
    sizes: NDArray[np.int64],
    rule: "Canvas",
) -> NDArray[np.float64]:
    """Width and height of boxes as they lie on the canvas, what is cut off left out: (N, 2) float64
    canvas pixels.

    Args:
        boxes_xyxy: (N, 4) image pixels.
        image: (N,) the row in ``sizes`` that each box belongs to.
        sizes: (I, 2) height and width of each image.
        rule: how images are placed.
    """
    different, which = np.unique(sizes, axis=0, return_inverse=True)
    frames = [frame_of(int(height), int(width), rule) for height, width in different]
    fields = np.array(
        [
            [p.scale_x, p.scale_y, p.offset_x, p.offset_y, p.valid_width, p.valid_height]
            for p in frames
        ]
    )
    scale, offset, limit = np.split(fields.reshape(-1, 6)[which.ravel()[image]], 3, axis=1)
    first, last = (
        np.clip(corner * scale + offset, 0, limit)
        for corner in (boxes_xyxy[:, :2], boxes_xyxy[:, 2:])
    )
    return np.asarray(last - first)
