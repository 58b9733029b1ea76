"""Blur of a lens, of glass, of motion and of zooming.

``corruption_noise`` describes the arguments and results of the functions.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.analysis.corruption_noise import Image


def gaussian(
    image: NDArray[np.float32],
    sigma: float,
    border: int = cv2.BORDER_REPLICATE,
    truncate: float = 4.0,
) -> Image:
    """A Gaussian blur out to ``truncate`` standard deviations, of (H, W) or (H, W, 3)."""
    side = 2 * int(truncate * sigma + 0.5) + 1
    return np.asarray(cv2.GaussianBlur(image, (side, side), sigma, borderType=border), np.float32)


def gaussian_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Gaussian blur, similar to an image out of focus."""
    return gaussian(image, (1, 2, 3, 4, 6)[severity - 1])


def defocus_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """The mean over a disk with a soft edge."""
    radius, edge = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    reach = max(radius, 8)
    square = np.arange(-reach, reach + 1) ** 2
    disk = (square[:, None] + square[None] <= radius**2).astype(np.float32)
    side = 3 if radius <= 8 else 5
    kernel = cv2.GaussianBlur(disk / disk.sum(), (side, side), edge)
    return np.asarray(cv2.filter2D(image, -1, kernel), np.float32)


def glass_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Blur, a local exchange of pixels, and blur again."""
    sigma, reach, rounds = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[
        severity - 1
    ]
    seen = np.floor(gaussian(image, sigma) * np.float32(255)).reshape(-1, 3)
    for _ in range(rounds):
        seen = seen[_shaken(image.shape[0], image.shape[1], reach, rng)]
    return gaussian(seen.reshape(image.shape) / np.float32(255), sigma)


def _shaken(height: int, width: int, reach: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """For each pixel the index (height * width,) of the pixel whose value it takes, at most about
    ``reach`` away.

    The published programs visit the pixels from the lower right corner. They mean to swap pixels,
    but copy them, and a copied pixel may have been overwritten before. This function computes the
    same for all pixels at once: chains of copies are followed by pointer doubling.
    """
    place = np.arange(height * width, dtype=np.int32)
    offset = rng.integers(-reach, reach, (2, height, width), np.int16)
    step = offset[0] * np.int32(width) + offset[1]
    inner = np.zeros((height, width), np.bool_)
    inner[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = True
    source = place + np.where(inner, step, 0).ravel()
    goes_on = (source > place) & inner.ravel()[source]
    while goes_on.any():
        who = np.flatnonzero(goes_on)
        via = source[who]
        source[who], goes_on[who] = source[via], goes_on[via]
    return source


def along(
    image: NDArray[np.float32], radius: int, sigma: float, degrees: float
) -> NDArray[np.float32]:
    """A blur in one direction: shifted copies, weighted by half a Gaussian, of (H, W) or (H, W,
    3).
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    angle = np.deg2rad(degrees)
    rows, columns = (
        np.ceil(steps * share - 0.5).astype(np.int64) for share in (np.sin(angle), np.cos(angle))
    )
    reach = 2 * radius
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    np.add.at(kernel, (reach + rows, reach + columns), (weights / weights.sum()).astype(np.float32))
    used_rows, used_columns = np.ptp(rows) + 1, np.ptp(columns) + 1
    top, left = reach + rows.min(), reach + columns.min()
    kernel = kernel[top : top + used_rows, left : left + used_columns]
    anchor = (int(reach - left), int(reach - top))
    return np.asarray(
        cv2.filter2D(image, -1, kernel, anchor=anchor, borderType=cv2.BORDER_REPLICATE), np.float32
    )


def motion_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """A camera that moved, within 45 degrees of the horizontal."""
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    return along(image, radius, sigma, rng.uniform(-45, 45))


def zoom_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """A camera that zoomed in: the mean of the image and of enlargements of its middle."""
    last, step = ((1.10, 0.01), (1.15, 0.01), (1.20, 0.02), (1.25, 0.02), (1.30, 0.03))[
        severity - 1
    ]
    factors = np.arange(1, last + 0.01, step)
    height, width = image.shape[:2]
    total = image.copy()
    for factor in factors:
        shift = [(1 - factor) * (width - 1) / 2, (1 - factor) * (height - 1) / 2]
        matrix = np.array([[factor, 0, shift[0]], [0, factor, shift[1]]])
        total += cv2.warpAffine(
            image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return np.asarray(total / np.float32(len(factors) + 1), np.float32)
