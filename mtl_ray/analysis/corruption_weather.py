"""Snow, frost, fog, brightness and spatter.

``corruption_noise`` describes the arguments and results of the functions.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.analysis.corruption_blur import along, gaussian
from mtl_ray.analysis.corruption_noise import Image, brightest

Layer = NDArray[np.float32]
"""(H, W)."""


def snow(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Two layers of falling flakes on a whitened image."""
    mean, deviation, zoom, threshold, radius, sigma, kept = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[severity - 1]
    height, width = image.shape[:2]
    size = int(np.ceil(height / zoom)), int(np.ceil(width / zoom))
    flakes = cv2.resize(
        _normal(size, mean, deviation, rng), (width, height), interpolation=cv2.INTER_LINEAR
    )
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1).astype(np.float32)
    fallen = along(flakes, int(radius), sigma, rng.uniform(-135, -45))[..., None]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    whiter = kept * image + (1 - kept) * np.maximum(image, grey * 1.5 + 0.5)
    return np.asarray(whiter + fallen + fallen[::-1, ::-1], np.float32)


def frost(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Ice on the lens.

    It is synthetic: needles in several directions within clouds, with the brightness of frosted
    glass.
    """
    kept, ice = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    height, width = image.shape[:2]
    needles = np.zeros(((height + 1) // 2, (width + 1) // 2), np.float32)
    for degrees in rng.uniform(0, 360, 4):
        needles = np.maximum(needles, along(_normal(needles.shape, 0, 1, rng), 6, 4, degrees))
    needles = cv2.resize(needles, (width, height), interpolation=cv2.INTER_LINEAR)
    clouds = _clouds(height, width, 1.6, rng)
    grey = rng.uniform(0.47, 0.81) + 0.09 * _standard(needles) + 0.08 * _standard(clouds)
    tint = np.array([-0.06, 0.0, 0.05], np.float32) * rng.uniform(0.3, 1.5)
    return np.asarray(kept * image + ice * np.clip(grey[..., None] + tint, 0, 1), np.float32)


def fog(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Adds clouds, and keeps the maximum brightness."""
    amount, decay = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[severity - 1]
    brightest = image.max()
    clouds = _clouds(image.shape[0], image.shape[1], decay, rng)[..., None]
    return np.asarray((image + amount * clouds) * (brightest / (brightest + amount)), np.float32)


def brightness(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Raises the value in HSV; hue and saturation stay, so all channels grow by one factor."""
    value = brightest(image)
    raised = np.minimum(value + np.float32((0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]), 1)
    return np.asarray(
        np.where(value > 0, image * (raised / np.maximum(value, 1e-9)), raised), np.float32
    )


def spatter(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Drops of water or mud on the lens."""
    mean, deviation, sigma, threshold, strength, mud = (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    )[severity - 1]
    height, width = image.shape[:2]
    liquid = gaussian(_normal((height, width), mean, deviation, rng), sigma)
    liquid = np.where(liquid < threshold, 0, liquid).astype(np.float32)
    if mud:
        cover = gaussian((liquid > threshold).astype(np.float32), strength)
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return np.asarray(
            image * (1 - cover) + np.array([63, 42, 20], np.float32) / 255 * cover, np.float32
        )
    shine = (liquid * _edges(liquid))[..., None]
    drops = shine / max(shine.max(), 1e-9) * strength
    return np.asarray(image + drops * np.array([175, 238, 238], np.float32) / 255, np.float32)


def _edges(liquid: Layer) -> Layer:
    """The distance of each pixel of a drop from its edge, lit from one side."""
    drawn = np.clip(liquid * 255, 0, 255).astype(np.uint8)
    away = cv2.distanceTransform(255 - cv2.Canny(drawn, 50, 150), cv2.DIST_L2, 5)
    _, near = cv2.threshold(away, 20, 20, cv2.THRESH_TRUNC)
    even = cv2.equalizeHist(cv2.blur(near, (3, 3)).astype(np.uint8))
    lit = cv2.filter2D(even, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    return np.asarray(cv2.blur(lit, (3, 3)), np.float32)


def _clouds(height: int, width: int, decay: float, rng: np.random.Generator) -> Layer:
    """A plasma fractal in [0, 1] by midpoint displacement on a torus.

    Each level displaces ``decay`` squared less.
    """
    side = 1 << max(1, (max(height, width) - 1).bit_length())
    grid, reach = np.zeros((1, 1), np.float32), 1.0
    while len(grid) < side:
        wide = np.zeros((2 * len(grid), 2 * len(grid)), np.float32)
        right, below = np.roll(grid, -1, axis=1), np.roll(grid, -1, axis=0)
        middle = (grid + right + below + np.roll(right, -1, axis=0)) / 4 + _uniform(
            grid, reach, rng
        )
        above, left = np.roll(middle, 1, axis=0), np.roll(middle, 1, axis=1)
        wide[::2, ::2], wide[1::2, 1::2] = grid, middle
        wide[::2, 1::2] = (grid + right + middle + above) / 4 + _uniform(grid, reach, rng)
        wide[1::2, ::2] = (grid + below + middle + left) / 4 + _uniform(grid, reach, rng)
        grid, reach = wide, reach / decay**2
    grid -= grid.min()
    return np.asarray(grid / max(grid.max(), 1e-9), np.float32)[:height, :width]


def _uniform(like: Layer, reach: float, rng: np.random.Generator) -> Layer:
    return (2 * rng.random(like.shape, np.float32) - 1) * np.float32(reach)


def _normal(
    size: tuple[int, ...], mean: float, deviation: float, rng: np.random.Generator
) -> Layer:
    return rng.standard_normal(size, np.float32) * np.float32(deviation) + np.float32(mean)


def _standard(layer: Layer) -> Layer:
    return np.asarray((layer - layer.mean()) / max(float(layer.std()), 1e-9), np.float32)
