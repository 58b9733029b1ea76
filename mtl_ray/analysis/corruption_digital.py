"""Digital processing of an image.

``corruption_noise`` describes the arguments and results of the functions.
"""

import io

import cv2
import numpy as np
from PIL import Image as Pillow

from mtl_ray.analysis.corruption_noise import Image, brightest


def contrast(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Moves each channel towards its mean."""
    mean = np.array(cv2.mean(image)[:3], np.float32)
    return np.asarray(
        (image - mean) * np.float32((0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]) + mean, np.float32
    )


def elastic_transform(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Displaces pixels elastically."""
    height, width = image.shape[:2]
    strength = 250 * (0.05, 0.065, 0.085, 0.1, 0.12)[severity - 1]
    places = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    sides = [2 * int(3 * 0.01 * side + 0.5) + 1 for side in (width, height)]
    for place in places:
        drawn = (2 * rng.random((height, width), np.float32) - 1) * np.float32(0.005 * height)
        place += strength * cv2.GaussianBlur(
            drawn, sides, 0.01 * width, sigmaY=0.01 * height, borderType=cv2.BORDER_REFLECT
        )
    return np.asarray(
        cv2.remap(image, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32
    )


def pixelate(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Replaces blocks of pixels by large pixels."""
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    height, width = image.shape[:2]
    picture = Pillow.fromarray(_bytes(image))
    small = picture.resize(
        (max(1, int(width * share)), max(1, int(height * share))), Pillow.Resampling.BOX
    )
    return _floats(small.resize((width, height), Pillow.Resampling.NEAREST))


def jpeg_compression(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """JPEG compression with low quality."""
    file = io.BytesIO()
    Pillow.fromarray(_bytes(image)).save(file, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    return _floats(Pillow.open(file))


def saturate(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Changes the saturation in HSV; grey pixels count as red."""
    factor, more = ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))[severity - 1]
    value = brightest(image)
    span = value + brightest(-image)
    saturation = span / np.maximum(value, 1e-9)
    changed = np.clip(saturation * np.float32(factor) + np.float32(more), 0, 1)
    coloured = value - (value - image) * (changed / np.maximum(saturation, 1e-9))
    red = value * (1 - changed * np.array([0, 1, 1], np.float32))
    return np.asarray(np.where(span > 0, coloured, red), np.float32)


def _bytes(image: Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return (image * 255 + np.float32(0.5)).astype(np.uint8)


def _floats(picture: Pillow.Image) -> Image:
    return np.asarray(np.asarray(picture, np.float32) / np.float32(255))
