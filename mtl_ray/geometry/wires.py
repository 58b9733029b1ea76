"""Objects drawn as lines with labels beside them, such as boxes in space.

Unlike in ``Drawing``, objects are often smaller than their labels and have free space around them.
So every label is drawn that finds a place; the classes of the others are in a legend.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mtl_ray.geometry.appearance import Rgb, font, is_light
from mtl_ray.geometry.cameras import clip_segments

_Rectangle = tuple[float, float, float, float]
_SHIFT = 4  # bits after the point of a pixel's coordinate


def draw_wires(
    image: NDArray[np.uint8],
    wires: Sequence[NDArray[np.float64]],
    names: Sequence[str],
    colours: Sequence[Rgb],
    scores: Sequence[float] | None = None,
) -> NDArray[np.uint8]:
    """A copy of an image with objects drawn on it.

    Args:
        image: (H, W, 3) uint8 RGB.
        wires: of each object (E, 2, 2), the pixels of both ends of its lines; the first objects lie
            on the others, and their labels find a place first.
        names: of each object, such as its class.
        colours: of each object.
        scores: of each object, if it has one.
    """
    height, width = image.shape[:2]
    drawn = image.copy()
    text_px = int(np.clip(max(height, width) / 62, 12, 20))
    thick = max(2, round(max(height, width) / 600))
    labels: list[tuple[str, str, Rgb, _Rectangle]] = []
    for index in reversed(range(len(wires))):
        shown = clip_segments(wires[index], (0.0, 0.0), (width - 1.0, height - 1.0))
        if not len(shown):
            continue
        ends = np.round(shown * (1 << _SHIFT)).astype(np.int32)
        low, high = shown.min(axis=(0, 1)), shown.max(axis=(0, 1))
        line = int(np.clip((high - low).max() / 20, 1, thick))  # small objects stay hollow
        cv2.polylines(drawn, list(ends), False, colours[index], line, cv2.LINE_AA, _SHIFT)
        if not names[index] and scores is None:
            continue
        text = names[index] if scores is None else f"{names[index]} {scores[index]:.2f}"
        around = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        labels.append((text, names[index], colours[index], around))
    sheet = Image.fromarray(drawn)
    _write_labels(ImageDraw.Draw(sheet), labels[::-1], (width, height), text_px)
    return np.asarray(sheet).copy()


def _write_labels(
    draw: ImageDraw.ImageDraw,
    labels: Sequence[tuple[str, str, Rgb, _Rectangle]],
    size: tuple[int, int],
    text_px: int,
) -> None:
    """Each label where it hides the least of the objects, and no other label."""
    objects = np.array([around for *_, around in labels], np.float64).reshape(-1, 4)
    taken = np.zeros((0, 4), np.float64)
    named: set[str] = set()
    missing: dict[str, Rgb] = {}
    for text, name, colour, around in labels:
        places = [
            place
            for place in _places(around, _size(text, text_px), size)
            if not _shared(place, taken).any()
        ]
        if places:
            best = min(places, key=lambda place: float(_shared(place, objects).sum()))
            _write(draw, text, colour, best, text_px)
            taken = np.concatenate([taken, [best]])
            named.add(name)
        else:
            missing.setdefault(name, colour)
    top = 4.0
    for name, colour in missing.items():
        wide, high = _size(name, text_px)
        place = (size[0] - wide - 4, top, size[0] - 4.0, top + high)
        if name not in named and place[3] < size[1] and not _shared(place, taken).any():
            _write(draw, name, colour, place, text_px)
        top += high


def _places(
    around: _Rectangle, label: tuple[float, float], size: tuple[int, int]
) -> Iterator[_Rectangle]:
    """Rectangles for a label around an object, best first, in the image."""
    left, top, right, bottom = around
    wide, high = label
    for x, y in (
        (left, top - high - 1),
        (left, bottom + 2),
        (right + 3, top),
        (left - wide - 3, top),
        (right - wide, top - high - 1),
        (right - wide, bottom + 2),
    ):
        x, y = (float(np.clip(x, 0, size[0] - wide)), float(np.clip(y, 0, size[1] - high)))
        yield x, y, x + wide, y + high


def _size(text: str, text_px: int) -> tuple[float, float]:
    return font(text, text_px).getlength(text) + 6, font("", text_px).getbbox("Ag")[3] + 3


def _write(
    draw: ImageDraw.ImageDraw, text: str, colour: Rgb, place: _Rectangle, text_px: int
) -> None:
    draw.rectangle(place, fill=colour)
    ink = (0, 0, 0) if is_light(colour) else (255, 255, 255)
    middle = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
    draw.text(middle, text, font=font(text, text_px), fill=ink, anchor="mm")


def _shared(place: _Rectangle, others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) square pixels that a rectangle shares with (N, 4) others."""
    sides = np.minimum(place[2:], others[:, 2:]) - np.maximum(place[:2], others[:, :2])
    return np.asarray(sides.clip(0).prod(axis=1), np.float64)
