"""Scenes that are mirrored, cropped, padded and resized; image and annotations change together.

Random numbers come from the caller.
"""

import math
import random
from dataclasses import replace

import cv2
import numpy as np

from mtl_ray.inputs.frame import frame_of, resized
from mtl_ray.inputs.image import Canvas
from mtl_ray.loading.config import RandomCrop, Zoom
from mtl_ray.loading.scene import Scene
from mtl_ray.loading.sizes import Resize, ScaleJitter


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


def resize(scene: Scene, height: int, width: int) -> Scene:
    """The scene at another size in pixels; both sides are resized on their own."""
    frame = frame_of(*scene.hw, Canvas(kind="stretch", height=height, width=width))
    image = resized(scene.image, height, width)
    return scene.changed(image, lambda kind, part: kind.place(part, frame))


def span(length: int, room: int, scale: float) -> tuple[int, int]:
    """How many pixels of a side of ``length`` are shown in ``room`` pixels at a scale, and in how
    many of these.
    """
    shown = max(1, min(length, round(room / scale)))
    return shown, min(room, max(1, round(shown * scale)))


def random_crop(scene: Scene, transform: RandomCrop, rng: random.Random) -> Scene:
    """A rectangle of random area and aspect."""
    height, width = scene.hw
    area = rng.uniform(*transform.area)
    aspect = math.exp(rng.uniform(math.log(transform.aspect[0]), math.log(transform.aspect[1])))
    crop_h = min(height, max(1, round(height * math.sqrt(area / aspect))))
    crop_w = min(width, max(1, round(width * math.sqrt(area * aspect))))
    top, left = random_integer(rng, height - crop_h), random_integer(rng, width - crop_w)
    return crop(scene, top, left, crop_h, crop_w, transform.min_visible)


def zoom(scene: Scene, transform: Zoom, rng: random.Random, grey: int) -> Scene:
    """Zooming in is a crop that the canvas enlarges, and zooming out is padding: nothing is
    resampled here.
    """
    height, width = scene.hw
    scale = rng.uniform(*transform.scale)
    frame_h, frame_w = max(1, round(height / scale)), max(1, round(width / scale))
    if scale >= 1:
        top, left = random_integer(rng, height - frame_h), random_integer(rng, width - frame_w)
        return crop(scene, top, left, frame_h, frame_w, transform.min_visible)
    top, left = random_integer(rng, frame_h - height), random_integer(rng, frame_w - width)
    return pad(scene, top, left, frame_h, frame_w, grey)


def short_side(scene: Scene, transform: Resize, rng: random.Random, rule: Canvas) -> Scene:
    """The whole scene at a random length of its shorter side, in the corner of the canvas."""
    least, most = transform.short_side
    length = least + transform.step * random_integer(rng, (most - least) // transform.step)
    height, width = scene.hw
    scale = min(
        length / min(height, width),
        transform.long_side / max(height, width),
        rule.height / height,
        rule.width / width,
    )
    shown_h = min(rule.height, max(1, round(height * scale)))
    shown_w = min(rule.width, max(1, round(width * scale)))
    return _in_corner(resize(scene, shown_h, shown_w), rule)


def scale_jitter(scene: Scene, transform: ScaleJitter, rng: random.Random, rule: Canvas) -> Scene:
    """The scene at a random scale: what the canvas holds of it, in the corner of the canvas."""
    return _in_corner(
        _part(scene, (rule.height, rule.width), rng, transform.scale, transform.min_visible), rule
    )


def _part(
    scene: Scene,
    room_hw: tuple[int, int],
    rng: random.Random,
    scales: tuple[float, float],
    min_visible: float,
) -> Scene:
    """A random part of the scene, resized, at most as large as the room: all of it where the scale
    leaves room. What is not shown is cut off before anything is resampled.
    """
    height, width = scene.hw
    scale = rng.uniform(*scales) * min(room_hw[0] / height, room_hw[1] / width)
    shown_h, part_h = span(height, room_hw[0], scale)
    shown_w, part_w = span(width, room_hw[1], scale)
    top, left = random_integer(rng, height - shown_h), random_integer(rng, width - shown_w)
    if (shown_h, shown_w) != (height, width):
        scene = crop(scene, top, left, shown_h, shown_w, min_visible)
    return resize(scene, part_h, part_w)


def _in_corner(scene: Scene, rule: Canvas) -> Scene:
    """The scene at the top left of the canvas; ``valid_hw`` says what is no padding."""
    padded = pad(scene, 0, 0, rule.height, rule.width, rule.pad)
    return replace(padded, valid_hw=scene.hw)


def beside(
    scene: Scene,
    hw: tuple[int, int],
    rng: random.Random,
    *,
    scales: tuple[float, float],
    flip_p: float,
    min_visible: float,
    grey: int,
) -> Scene:
    """A scene made ready to be put onto another one of (height, width) pixels: at a random scale
    relative to the largest that fits, mirrored with the probability ``flip_p``, at a random place.
    """
    part = _part(scene, hw, rng, scales, min_visible)
    if rng.random() < flip_p:
        part = flip(part, "horizontal")
    height, width = part.hw
    top, left = random_integer(rng, hw[0] - height), random_integer(rng, hw[1] - width)
    return pad(part, top, left, *hw, grey)


def random_integer(rng: random.Random, most: int) -> int:
    """An integer from 0 to ``most``, each as likely; ``Random.random`` alone is promised to stay
    the same between Pythons.
    """
    return int(rng.random() * (most + 1))
