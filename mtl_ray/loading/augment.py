"""Changes made to scenes for training: the image and every annotation change together.

Written with OpenCV and NumPy instead of torchvision's transforms v2, which cost several times as
much for a small image (benchmarks/README.md); the tests compare both. Random numbers come from the
caller.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray.annotations.annotation import Region
from mtl_ray.inputs.frame import scaled
from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.config import Augmentation, Colour, Flip, Mosaic, RandomCrop, Zoom
from mtl_ray.loading.scene import Kind, Scene

_LUMA = np.array([0.299, 0.587, 0.114])
"""How much of each of red, green and blue the eye sees as brightness (ITU-R BT.601)."""
_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def augmented(
    scene: Scene,
    transforms: Sequence[Augmentation],
    rng: random.Random,
    partners: Callable[[], list[Scene]],
    rule: Canvas,
) -> Scene:
    """The scene after ``transforms`` in their order, each applied with its probability.

    Args:
        scene: as decoded.
        transforms: ``data.augment``.
        rng: where chance comes from.
        partners: gives the three other scenes of a mosaic, as decoded.
        rule: the canvas that the scene will be put on: the size of a mosaic, and the grey of the
            padding.
    """
    for transform in transforms:
        if rng.random() >= transform.p:
            continue
        match transform:
            case Flip():
                scene = flip(scene, transform.direction)
            case RandomCrop():
                scene = _random_crop(scene, transform, rng)
            case Zoom():
                scene = _zoom(scene, transform, rng, rule.pad)
            case Colour():
                scene = color_jitter(scene, transform, rng)
            case Mosaic():
                scene = mosaic([scene, *partners()], transform, rng, rule)
    return scene


def flip(scene: Scene, direction: str) -> Scene:
    """Mirrored from left to right (``horizontal``) or upside down (``vertical``)."""
    axis = 0 if direction == "horizontal" else 1
    length = scene.image.shape[1 - axis]
    flipped = np.asarray(cv2.flip(scene.image, 1 - axis), np.uint8)
    return scene.changed(flipped, lambda kind, part: kind.flip(part, axis, length, scene.mirror))


def crop(scene: Scene, top: int, left: int, height: int, width: int, min_visible: float) -> Scene:
    """The part of a scene inside a rectangle, in pixels; objects with less than the share
    ``min_visible`` inside are dropped.
    """
    image = scene.image[top : top + height, left : left + width]
    return scene.changed(
        image, lambda kind, part: kind.crop(part, top, left, height, width, min_visible)
    )


def pad(scene: Scene, top: int, left: int, height: int, width: int, grey: int) -> Scene:
    """The scene inside a larger image of (height, width) pixels, its corner at (top, left); the
    rest is grey without a class.
    """
    borders = (top, height - top - scene.image.shape[0], left, width - left - scene.image.shape[1])
    image = np.asarray(
        cv2.copyMakeBorder(scene.image, *borders, cv2.BORDER_CONSTANT, value=(grey, grey, grey)),
        np.uint8,
    )
    return scene.changed(image, lambda kind, part: kind.pad(part, top, left, height, width))


def _random_crop(scene: Scene, transform: RandomCrop, rng: random.Random) -> Scene:
    height, width = scene.hw
    area = rng.uniform(*transform.area)
    aspect = math.exp(rng.uniform(math.log(transform.aspect[0]), math.log(transform.aspect[1])))
    crop_h = min(height, max(1, round(height * math.sqrt(area / aspect))))
    crop_w = min(width, max(1, round(width * math.sqrt(area * aspect))))
    top, left = _between(rng, height - crop_h), _between(rng, width - crop_w)
    return crop(scene, top, left, crop_h, crop_w, transform.min_visible)


def _zoom(scene: Scene, transform: Zoom, rng: random.Random, grey: int) -> Scene:
    """Zooming in is a crop that the canvas enlarges, and zooming out is padding: nothing is
    resampled here.
    """
    height, width = scene.hw
    scale = rng.uniform(*transform.scale)
    frame_h, frame_w = max(1, round(height / scale)), max(1, round(width / scale))
    if scale >= 1:
        top, left = _between(rng, height - frame_h), _between(rng, width - frame_w)
        return crop(scene, top, left, frame_h, frame_w, transform.min_visible)
    top, left = _between(rng, frame_h - height), _between(rng, frame_w - width)
    return pad(scene, top, left, frame_h, frame_w, grey)


def _between(rng: random.Random, most: int) -> int:
    """An integer from 0 to ``most``, each as likely; ``Random.random`` alone is promised to stay
    the same between Pythons.
    """
    return int(rng.random() * (most + 1))


# Colour: one matrix for each pixel.


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


# Mosaic.


def mosaic(scenes: Sequence[Scene], transform: Mosaic, rng: random.Random, rule: Canvas) -> Scene:
    """An image of the canvas's size whose quarters, around a random point, hold a corner of each of
    four scenes.

    Bochkovskiy et al. 2020, YOLOv4, figure 3. Each kind of annotation says what becomes of an image
    that is not annotated (``AnnotationKind.join``). A class counts as known if all four datasets
    know it.
    """
    image = np.full((rule.height, rule.width, 3), rule.pad, np.uint8)
    centre_y, centre_x = (
        round(rule.height * rng.uniform(*transform.centre)),
        round(rule.width * rng.uniform(*transform.centre)),
    )
    regions: list[tuple[Region, tuple[int, int]]] = []
    for quarter, scene in enumerate(scenes):
        above, before = quarter < 2, quarter % 2 == 0
        scale = rng.uniform(*transform.scale) * min(
            rule.height / scene.hw[0], rule.width / scene.hw[1]
        )
        rows, scale_y = _span(
            scene.hw[0], centre_y if above else rule.height - centre_y, scale, from_end=above
        )
        columns, scale_x = _span(
            scene.hw[1], centre_x if before else rule.width - centre_x, scale, from_end=before
        )
        height, width = (
            round((rows.stop - rows.start) * scale_y),
            round((columns.stop - columns.start) * scale_x),
        )
        top, left = (
            centre_y - height if above else centre_y,
            centre_x - width if before else centre_x,
        )
        region = Region(
            rows=rows,
            columns=columns,
            scale_y=scale_y,
            scale_x=scale_x,
            height=height,
            width=width,
            min_visible=transform.min_visible,
        )
        regions.append((region, (top, left)))
        if height and width:
            image[top : top + height, left : left + width] = scaled(
                scene.image[rows, columns], height, width
            )
    kinds = dict.fromkeys(kind for scene in scenes for kind in scene.parts)
    joined = {kind: _joined(kind, scenes, regions, rule) for kind in kinds}
    known = {
        name: np.logical_and.reduce([scene.known_classes[name] for scene in scenes])
        for name in scenes[0].known_classes
    }
    parts = {kind: part for kind, part in joined.items() if part is not None}
    return replace(scenes[0], raw=image, parts=parts, known_classes=known)


def _joined(
    kind: Kind,
    scenes: Sequence[Scene],
    regions: Sequence[tuple[Region, tuple[int, int]]],
    rule: Canvas,
) -> object:
    parts = [
        (scene.parts.get(kind), region, corner)
        for scene, (region, corner) in zip(scenes, regions, strict=True)
    ]
    return kind.join(parts, rule.height, rule.width)


def _span(length: int, room: int, scale: float, *, from_end: bool) -> tuple[slice, float]:
    """Which pixels of a side of ``length`` are shown in ``room`` pixels of the mosaic, and
    mosaic pixels per pixel.
    """
    shown = max(1, min(length, round(room / scale)))
    size = min(room, max(1, round(shown * scale)))
    return (slice(length - shown, length) if from_end else slice(0, shown)), size / shown
