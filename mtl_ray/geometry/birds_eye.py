"""Clouds and boxes as seen from above, as an image for figures and pages.

A view is recognised by the shape of its image, so whoever draws boxes on it needs nothing else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mtl_ray.geometry.appearance import Rgb, font
from mtl_ray.geometry.boxes_3d import footprints
from mtl_ray.geometry.cameras import CameraModel, project, visible_edges
from mtl_ray.geometry.wires import draw_wires

_GROUND, _RING, _RING_TEXT = 16, (52, 56, 64), (150, 156, 168)
_HEIGHTS = ((70, 95, 150), (85, 150, 190), (130, 200, 150), (235, 215, 110), (255, 170, 90))
"""Colours of points from the ground up."""
_HIGH_M = 3.0
"""Metres above the ground where colours end."""
_HEADING = 0.4
"""How far the line to the front goes on beyond it, in halves of the length."""


@dataclass(frozen=True, slots=True)
class GroundView:
    """A rectangle of the ground: x (front) points up in the image, y (left) to the left.

    Attributes:
        front, back, side: metres from the sensor to its edges.
        pixels: of one metre.
    """

    front: float
    back: float
    side: float
    pixels: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image."""
        return round((self.front + self.back) * self.pixels), round(2 * self.side * self.pixels)

    def to_image(self, xy: NDArray[np.floating]) -> NDArray[np.float64]:
        """(..., 2) metres -> (..., 2) pixels, x to the right and y down."""
        column = (self.side - xy[..., 1].astype(np.float64)) * self.pixels
        row = (self.front - xy[..., 0].astype(np.float64)) * self.pixels
        return np.stack([column, row], axis=-1)


VIEWS = (
    GroundView(72.0, 0.0, 40.0, 10),
    GroundView(54.0, 54.0, 54.0, 9),
    GroundView(108.0, 108.0, 108.0, 5),
)
"""In front of the vehicle, around it, far around it."""


def view_of(points: NDArray[np.float32]) -> GroundView:
    """The smallest view with nearly all points (N, >= 2)."""
    if not len(points):
        return VIEWS[0]
    for view in VIEWS:
        x, y = points[:, 0], points[:, 1]
        inside = (x >= -view.back) & (x <= view.front) & (np.abs(y) <= view.side)
        if inside.mean() >= 0.98:
            return view
    return VIEWS[-1]


def view_of_image(image: NDArray[np.uint8]) -> GroundView:
    """The view that an image of ``draw_points`` shows."""
    return next(view for view in VIEWS if view.shape == image.shape[:2])


def draw_points(points: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(N, >= 3) points from above: (H, W, 3) uint8 RGB, brighter and warmer where they are higher,
    on circles of known range around the sensor.
    """
    view = view_of(points)
    image = np.full((*view.shape, 3), _GROUND, np.uint8)
    _draw_ranges(image, view)
    if not len(points):
        return image
    ground = np.percentile(points[:, 2], 5)  # most sensors see much of it
    order = np.argsort(points[:, 2], kind="stable")  # higher points are drawn last
    share = np.clip((points[order, 2] - ground) / _HIGH_M, 0, 1)
    stops = np.linspace(0, 1, len(_HEIGHTS))
    colours = np.stack(
        [np.interp(share, stops, channel) for channel in np.array(_HEIGHTS, np.float64).T], axis=1
    ).astype(np.uint8)
    column, row = np.floor(view.to_image(points[order, :2])).astype(np.int64).T
    # A point is two pixels wide and high: single ones are lost when the image is made smaller.
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        inside = _inside(row + down, column + right, view)
        image[(row + down)[inside], (column + right)[inside]] = colours[inside]
    return image


def draw_boxes(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    names: Sequence[str],
    colours: Sequence[Rgb],
    scores: Sequence[float] | None = None,
) -> NDArray[np.uint8]:
    """An image of ``draw_points`` with boxes on it; a line from the middle of each shows its front.

    Args:
        image: of ``draw_points``.
        boxes: (N, 7); a box with a NaN is not drawn.
        names: N names of classes.
        colours: N colours.
        scores: N scores.
    """
    view = view_of_image(image)
    around = footprints(boxes)  # (N, 4, 2) metres
    sides = np.stack([around, np.roll(around, -1, axis=1)], axis=2)
    front = (around[:, 0] + around[:, 3]) / 2
    centre = np.asarray(boxes, np.float64)[:, :2]
    headings = np.stack([centre, front + (front - centre) * _HEADING], axis=1)
    wires = view.to_image(np.concatenate([sides, headings[:, None]], axis=1))
    return _draw_known(image, list(wires), boxes, names, colours, scores)


def draw_boxes_on_camera(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    camera: CameraModel,
    names: Sequence[str],
    colours: Sequence[Rgb],
    scores: Sequence[float] | None = None,
) -> NDArray[np.uint8]:
    """The image of a camera with the edges of boxes on it, the nearest on top; arguments as
    of ``draw_boxes``.
    """
    owners, ends = visible_edges(boxes, camera)
    _, depth = project(np.asarray(boxes, np.float64)[:, :3], camera)
    order = np.argsort(depth, kind="stable")
    return _draw_known(
        image,
        [ends[owners == index] for index in order],
        np.asarray(boxes)[order],
        [names[index] for index in order],
        [colours[index] for index in order],
        None if scores is None else [scores[index] for index in order],
    )


def _draw_known(
    image: NDArray[np.uint8],
    wires: Sequence[NDArray[np.float64]],
    boxes: NDArray[np.floating],
    names: Sequence[str],
    colours: Sequence[Rgb],
    scores: Sequence[float] | None,
) -> NDArray[np.uint8]:
    known = np.flatnonzero(np.isfinite(boxes).all(axis=1)).tolist()
    return draw_wires(
        image,
        [wires[index] for index in known],
        [names[index] for index in known],
        [colours[index] for index in known],
        None if scores is None else [scores[index] for index in known],
    )


def _draw_ranges(image: NDArray[np.uint8], view: GroundView) -> None:
    """Circles every 10 or 20 metres around the sensor, with their radius, and the sensor."""
    step = 10 if view.pixels >= 9 else 20
    column, row = view.to_image(np.zeros(2))
    centre = (round(float(column)), round(float(row)))
    reach = math.hypot(max(view.front, view.back), view.side)
    radii = range(step, int(reach) + 1, step)
    for radius in radii:
        cv2.circle(image, centre, radius * view.pixels, _RING, 1, cv2.LINE_AA)
    sheet = Image.fromarray(image)
    draw = ImageDraw.Draw(sheet)
    for radius in radii:
        if radius < view.front:
            place = (centre[0] + 3, centre[1] - radius * view.pixels + 2)
            draw.text(place, f"{radius} m", font=font("m", 13), fill=_RING_TEXT)
    nose = [(centre[0], centre[1] - 12), (centre[0] - 6, centre[1]), (centre[0] + 6, centre[1])]
    draw.polygon(nose, fill=_RING_TEXT)
    image[:] = np.asarray(sheet)


def _inside(
    row: NDArray[np.int64], column: NDArray[np.int64], view: GroundView
) -> NDArray[np.bool_]:
    height, width = view.shape
    return np.asarray((column >= 0) & (column < width) & (row >= 0) & (row < height))
