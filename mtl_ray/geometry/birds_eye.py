"""Clouds and boxes as seen from above, as an image for figures and pages.

A view is recognised by the shape of its image, so whoever draws boxes on it needs nothing else.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class View:
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


VIEWS = (View(72.0, 0.0, 40.0, 10), View(54.0, 54.0, 54.0, 9), View(108.0, 108.0, 108.0, 5))
"""In front of the vehicle, around it, far around it."""


def view_of(points: NDArray[np.float32]) -> View:
    """The smallest view with nearly all points (N, >= 2)."""
    if not len(points):
        return VIEWS[0]
    for view in VIEWS:
        x, y = points[:, 0], points[:, 1]
        inside = (x >= -view.back) & (x <= view.front) & (np.abs(y) <= view.side)
        if inside.mean() >= 0.98:
            return view
    return VIEWS[-1]


def view_of_image(image: NDArray[np.uint8]) -> View:
    """The view that an image of ``draw_points`` shows."""
    return next(view for view in VIEWS if view.shape == image.shape[:2])


def draw_points(points: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(N, >= 3) points from above: (H, W, 3) uint8 RGB, brighter where they are higher."""
    view = view_of(points)
    image = np.full((*view.shape, 3), 16, np.uint8)
    if not len(points):
        return image
    column, row = np.floor(view.to_image(points[:, :2])).astype(np.int64).T
    height, width = view.shape
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    order = np.argsort(points[inside, 2], kind="stable")  # higher points are drawn last
    shade = np.clip((points[inside, 2][order] + 3) / 4, 0, 1)
    colour = np.stack([90 + 150 * shade, 120 + 110 * shade, 170 + 40 * shade], axis=1)
    image[row[inside][order], column[inside][order]] = colour.astype(np.uint8)
    return image
