"""Random changes of brightness, contrast, saturation and hue, all as one matrix on each pixel."""

import math
import random
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.loading.config import Colour
from mtl_ray.loading.scene import Scene

_LUMA = np.array([0.299, 0.587, 0.114])
"""How much of each of red, green and blue the eye sees as brightness (ITU-R BT.601)."""
_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def recoloured(scene: Scene, change: Colour, numbers: random.Random) -> Scene:
    """The scene with another brightness, contrast, saturation and hue; values beyond 0 and 255 are cut off."""
    brightness, contrast, saturation = (
        numbers.uniform(max(0.0, 1 - most), 1 + most) for most in (change.brightness, change.contrast, change.saturation)
    )
    hue = numbers.uniform(-change.hue, change.hue)
    mean = float(np.dot(cv2.mean(scene.image)[:3], _LUMA)) if change.contrast else 0.0
    matrix = colour_matrix(brightness, contrast, saturation, hue, mean)
    return replace(scene, image=np.asarray(cv2.transform(scene.image, matrix), np.uint8))


def colour_matrix(brightness: float, contrast: float, saturation: float, hue: float, mean: float) -> NDArray[np.float32]:
    """(3, 4) float32: what a pixel (R, G, B, 1) is multiplied with.

    First brightness is multiplied, then the distance from the image's ``mean`` grey (contrast), then the distance of each
    pixel from its own grey (saturation), then the hue is turned by ``hue`` of a full circle, in the plane of I and Q of the
    colour space YIQ (Haeberli, Matrix Operations for Image Processing, 1993).
    """
    matrix = np.eye(3) * brightness * contrast
    offset = np.full(3, mean * brightness * (1 - contrast))
    mix = saturation * np.eye(3) + (1 - saturation) * _LUMA[None, :]
    angle = 2 * math.pi * hue
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = _FROM_YIQ @ np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ _TO_YIQ
    change = turn @ mix
    return np.column_stack([change @ matrix, change @ offset]).astype(np.float32)
