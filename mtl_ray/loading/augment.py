"""Changes made to scenes for training: the input and every annotation change together.

Those of images are written with OpenCV and NumPy instead of torchvision's transforms v2, which cost
several times as much for a small image (benchmarks/README.md); the tests compare both. Random
numbers come from the caller.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.inputs.image import Canvas
from mtl_ray.inputs.input import AnyCanvas
from mtl_ray.loading.cloud_config import CloudTransform
from mtl_ray.loading.clouds import changed_cloud
from mtl_ray.loading.config import (
    Augmentation,
    Colour,
    CopyPaste,
    Flip,
    ImageTransform,
    Mixup,
    Mosaic,
    RandomCrop,
    Zoom,
)
from mtl_ray.loading.joining import copy_paste, mixup, mosaic
from mtl_ray.loading.moves import flip, random_crop, scale_jitter, short_side, zoom
from mtl_ray.loading.object_bank import ObjectBank
from mtl_ray.loading.scene import Scene
from mtl_ray.loading.sizes import Resize, ScaleJitter

Partners = Callable[[int, int], list[Scene]]
"""Given a start and a stop, these other scenes, as decoded."""
OF_MOSAIC = 3
"""The other scenes of a mosaic."""
_LUMA = np.array([0.299, 0.587, 0.114])
"""How much of each of red, green and blue the eye sees as brightness (ITU-R BT.601)."""
_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def num_partners(transforms: Sequence[Augmentation]) -> int:
    """How many other scenes the transforms may ask for."""
    singles = sum(isinstance(each, Mixup | CopyPaste) for each in transforms)
    return _of_mosaic(transforms) + singles


def _of_mosaic(transforms: Sequence[Augmentation]) -> int:
    joins = any(isinstance(each, Mosaic) and each.p > 0 for each in transforms)
    return OF_MOSAIC if joins else 0


def augmented(
    scene: Scene,
    transforms: Sequence[Augmentation],
    rng: random.Random,
    partners: Partners,
    rule: AnyCanvas,
    banks: Mapping[str, ObjectBank] = MappingProxyType({}),
) -> Scene:
    """The scene after ``transforms`` in their order, each applied with its probability.

    Args:
        scene: as decoded.
        transforms: ``data.augment``.
        rng: where chance comes from.
        partners: gives other scenes, ``num_partners`` of them: first those of a mosaic, then one
            for each mixup and copy-paste.
        rule: the canvas that the scene will be put on: the size of a mosaic, and the grey of the
            padding.
        banks: of ``open_banks``.
    """
    place = _of_mosaic(transforms) - 1
    for transform in transforms:
        place += isinstance(transform, Mixup | CopyPaste)
        if rng.random() >= transform.p:
            continue
        if isinstance(transform, CloudTransform):
            scene = changed_cloud(scene, transform, rng, banks)
        else:
            assert isinstance(rule, Canvas)
            scene = _changed_image(scene, transform, rng, partners, place, rule)
    return scene


def _changed_image(
    scene: Scene,
    transform: ImageTransform,
    rng: random.Random,
    partners: Partners,
    place: int,
    rule: Canvas,
) -> Scene:
    """The scene after a transform of images; ``place`` is that of its partner."""
    match transform:
        case Flip():
            return flip(scene, transform.direction)
        case RandomCrop():
            return random_crop(scene, transform, rng)
        case Zoom():
            return zoom(scene, transform, rng, rule.pad)
        case Resize():
            return short_side(scene, transform, rng, rule)
        case ScaleJitter():
            return scale_jitter(scene, transform, rng, rule)
        case Colour():
            return color_jitter(scene, transform, rng)
        case Mosaic():
            return mosaic([scene, *partners(0, OF_MOSAIC)], transform, rng, rule)
        case Mixup():
            return mixup(scene, partners(place, place + 1)[0], transform, rng, rule)
        case CopyPaste():
            return copy_paste(scene, partners(place, place + 1)[0], transform, rng, rule)


def color_jitter(scene: Scene, transform: Colour, rng: random.Random) -> Scene:
    """The scene with another brightness, contrast, saturation and hue; values beyond 0 and 255
    are clipped.
    """
    brightness, contrast, saturation = (
        rng.uniform(max(0.0, 1 - most), 1 + most)
        for most in (transform.brightness, transform.contrast, transform.saturation)
    )
    hue = rng.uniform(-transform.hue, transform.hue)
    mean = float(np.dot(cv2.mean(scene.image)[:3], _LUMA)) if transform.contrast else 0.0
    matrix = color_matrix(brightness, contrast, saturation, hue, mean)
    return replace(scene, raw=np.asarray(cv2.transform(scene.image, matrix), np.uint8))


def color_matrix(
    brightness: float, contrast: float, saturation: float, hue: float, mean: float
) -> NDArray[np.float32]:
    """(3, 4) float32: what a pixel (R, G, B, 1) is multiplied with.

    First brightness is multiplied, then the distance from the image's ``mean`` grey (contrast),
    then the distance of each pixel from its own grey (saturation), then the hue is turned by
    ``hue`` of a full circle, in the plane of I and Q of the colour space YIQ (Haeberli, Matrix
    Operations for Image Processing, 1993).
    """
    matrix = np.eye(3) * brightness * contrast
    offset = np.full(3, mean * brightness * (1 - contrast))
    mix = saturation * np.eye(3) + (1 - saturation) * _LUMA[None, :]
    angle = 2 * math.pi * hue
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = _FROM_YIQ @ np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ _TO_YIQ
    change = turn @ mix
    return np.column_stack([change @ matrix, change @ offset]).astype(np.float32)
