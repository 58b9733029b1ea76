"""Noise of a sensor: Gaussian, shot, impulse and speckle noise.

Like all corruptions, these functions take an image (H, W, 3) float32 in [0, 1], a severity from 1
to 5 and a generator, and return an image whose values may leave [0, 1].
"""

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


def brightest(image: Image) -> Image:
    """The largest of the three channels (H, W, 1)."""
    return np.asarray(
        np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2])[..., None]
    )


def gaussian_noise(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Independent normal noise on each value."""
    scale = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return image + np.float32(scale) * rng.standard_normal(image.shape, np.float32)


def shot_noise(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Poisson noise of a small number of photons per value."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return (rng.poisson(image * photons) / np.float32(photons)).astype(np.float32)


def impulse_noise(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Salt and pepper noise in equal parts, independently for each channel."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    drawn = rng.random(image.shape, np.float32)
    return np.where(drawn < share / 2, np.float32(0), np.where(drawn < share, np.float32(1), image))


def speckle_noise(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Normal noise in proportion to the value."""
    scale = (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]
    return image + image * np.float32(scale) * rng.standard_normal(image.shape, np.float32)
