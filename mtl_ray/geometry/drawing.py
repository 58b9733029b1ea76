"""Draws boxes, masks, points and text on images, also on small ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mtl_ray.geometry.appearance import Rgb, font, is_light

LEAST_SIDE = 320
"""Images with a shorter longest side are enlarged by an integer factor before drawing."""
LEAST_TEXT_PX = 10
FEW_OBJECTS = 8
"""Up to this many objects all get a label; above, objects smaller than their label get a legend
instead.
"""
_Rectangle = tuple[float, float, float, float]


class Drawing:
    """An image to draw on. Coordinates are pixels of the given image, before it is enlarged."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        """Takes a copy of (H, W, 3) uint8 RGB."""
        longer = max(image.shape[:2])
        self._hw = image.shape[:2]
        self._scale = max(1, math.ceil(LEAST_SIDE / longer))
        enlarged = image.repeat(self._scale, axis=0).repeat(self._scale, axis=1)
        self._image = Image.fromarray(enlarged)
        self._line = max(2, round(longer * self._scale / 320))
        self._text_px = max(13, round(longer * self._scale / 42))
        self._least_text_px = max(LEAST_TEXT_PX, round(longer * self._scale / 90))
        self._words: list[_Word] = []
        self._objects: list[_Rectangle] = []

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(H * k, W * k, 3) uint8 RGB, with k the factor of enlargement.

        Labels are drawn last, in order, where they hide the fewest objects. A label that would
        overlap another one is left out; among many objects, so is a label larger than its object.
        """
        finished = self._image.copy()
        draw = ImageDraw.Draw(finished)
        taken: list[_Rectangle] = []
        objects = np.array(self._objects).reshape(-1, 4)
        for word in self._legible():
            free = [
                place for place in word.places if not any(_overlap(place, other) for other in taken)
            ]
            if free:
                taken.append(min(free, key=lambda place: _hidden(place, objects)))
                self._write(draw, word, taken[-1])
        return np.asarray(finished).copy()

    def _legible(self) -> "list[_Word]":
        """The labels to draw, and a legend for objects whose label is left out."""
        if sum(word.of is not None for word in self._words) <= FEW_OBJECTS:
            return self._words
        kept = [
            word
            for word in self._words
            if word.of is None or _area(word.places[0]) <= _area(word.of)
        ]
        named = {word.colour for word in kept if word.of is not None}
        missing = {
            word.legend: word.colour
            for word in self._words
            if word.legend and word.colour not in named
        }
        return [
            *kept,
            *(
                self._legend_word(name, colour, line)
                for line, (name, colour) in enumerate(missing.items())
            ),
        ]

    def _legend_word(self, name: str, colour: Rgb, line: int) -> "_Word":
        height = self._text_size(name, self._least_text_px)[1]
        right, bottom = float(self._image.width), self._image.height - (line + 1) * height
        corners = [(x, y) for y in (line * height, bottom) for x in (0.0, right)]
        return self._word(name, corners, colour, self._least_text_px)

    def tint(
        self, mask: NDArray[np.bool_] | NDArray[np.uint8], colour: Rgb, strength: float = 0.5
    ) -> None:
        """Mixes a colour into the pixels of a mask (H, W) and draws its outline."""
        large = self._enlarged(mask.astype(np.uint8))
        pixels = np.asarray(self._image).copy()
        inside = large > 0
        pixels[inside] = pixels[inside] * (1 - strength) + np.array(colour) * strength
        outlines, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(pixels, outlines, -1, colour, max(1, self._line // 2), cv2.LINE_AA)
        self._image = Image.fromarray(pixels)

    def tint_classes(
        self, classes: NDArray[np.uint8], colours: Sequence[Rgb], strength: float = 0.6
    ) -> None:
        """Mixes the colour of each pixel's class (H, W) into it; pixels without a class become
        dark grey.
        """
        table = np.zeros((256, 3), np.float32)
        table[: len(colours)] = colours
        large = self._enlarged(classes)
        pixels = np.asarray(self._image).astype(np.float32)
        mixed = pixels * (1 - strength) + table[large] * strength
        nothing = large >= len(colours)
        mixed[nothing] = pixels[nothing].mean(axis=1, keepdims=True) * 0.35
        self._image = Image.fromarray(mixed.astype(np.uint8))

    def name_regions(
        self,
        classes: NDArray[np.uint8],
        names: Sequence[str],
        colours: Sequence[Rgb],
        least_share: float = 0.004,
    ) -> None:
        """Writes the name of each class into the thickest part of its largest region, if that is
        large enough.
        """
        for index in np.unique(classes[classes < len(names)]):
            count, regions, sizes, _ = cv2.connectedComponentsWithStats(
                (classes == index).astype(np.uint8)
            )
            if count < 2:
                continue
            largest = 1 + int(sizes[1:, cv2.CC_STAT_AREA].argmax())
            if sizes[largest, cv2.CC_STAT_AREA] < least_share * classes.size:
                continue
            depth = cv2.distanceTransform(
                np.pad((regions == largest).astype(np.uint8), 1), cv2.DIST_L2, 3
            )[1:-1, 1:-1]
            y, x = np.unravel_index(int(depth.argmax()), depth.shape)
            width, height = self._text_size(names[index])
            corner = (
                (float(x) + 0.5) * self._scale - width / 2,
                (float(y) + 0.5) * self._scale - height / 2,
            )
            self._note(names[index], [corner], colours[index])

    def box(
        self,
        box_xyxy: NDArray[np.float32],
        text: str,
        colour: Rgb,
        *,
        dashed: bool = False,
        legend: str = "",
    ) -> None:
        """Draws a box with a label above it, or below or inside if there is no space.

        Args:
            box_xyxy: (4,) pixels of the image.
            text: the label; empty for none.
            colour: of the box and of the background of the label.
            dashed: whether the line is dashed.
            legend: meaning of the colour, if many objects are too small for labels.
        """
        x1, y1, x2, y2 = (float(value) * self._scale for value in box_xyxy)
        draw = ImageDraw.Draw(self._image)
        side = max(min(x2 - x1, y2 - y1), 1.0)
        line = int(np.clip(side / 6, 1, self._line))
        if dashed:
            for start, stop in (
                ((x1, y1), (x2, y1)),
                ((x2, y1), (x2, y2)),
                ((x2, y2), (x1, y2)),
                ((x1, y2), (x1, y1)),
            ):
                self._dashes(draw, start, stop, colour, line)
        else:
            draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=line)
        self._objects.append((x1, y1, x2, y2))
        if text:
            text_px = int(np.clip(side / 2.5, self._least_text_px, self._text_px))
            height = self._text_size(text, text_px)[1]
            corners = (
                [(x1, y1 - height), (x1, y2), (x1, y1)] if y1 >= height else [(x1, y1), (x1, y2)]
            )
            self._words.append(
                self._word(text, corners, colour, text_px, of=(x1, y1, x2, y2), legend=legend)
            )

    def pose(
        self, points: NDArray[np.float32], skeleton: Sequence[tuple[int, int]], colour: Rgb
    ) -> None:
        """Draws points (K, 3) x, y, visibility and the lines of the skeleton: points of 0 not at
        all, of 1 hollow.
        """
        draw = ImageDraw.Draw(self._image)
        known = points[:, 2] > 0
        placed = [(float(x) * self._scale, float(y) * self._scale) for x, y in points[:, :2]]
        for first, second in skeleton:
            if (
                0 <= min(first, second) <= max(first, second) < len(known)
                and known[first]
                and known[second]
            ):
                draw.line([placed[first], placed[second]], fill=colour, width=self._line)
        radius = self._line * 1.4
        for index in np.flatnonzero(known):
            x, y = placed[index]
            inside = None if points[index, 2] < 1.5 else colour
            draw.ellipse(
                (x - radius, y - radius, x + radius, y + radius),
                fill=inside,
                outline=(255, 255, 255),
                width=max(1, self._line // 2),
            )

    def caption(self, lines: Sequence[tuple[str, Rgb]]) -> None:
        """Writes lines of text from the top left corner, as many as fit."""
        height = self._text_size("A")[1]
        for line, (text, colour) in enumerate(lines):
            if (line + 1) * height <= self._image.height:
                self._note(text, [(0, line * height)], colour)

    def _note(self, text: str, corners: Sequence[tuple[float, float]], colour: Rgb) -> None:
        """Adds a label with possible positions of its top left corner."""
        self._words.append(self._word(text, corners, colour, self._text_px))

    def _word(
        self,
        text: str,
        corners: Sequence[tuple[float, float]],
        colour: Rgb,
        text_px: int,
        *,
        of: "_Rectangle | None" = None,
        legend: str = "",
    ) -> "_Word":
        width, height = self._text_size(text, text_px)
        places = []
        for x, y in corners:
            left = min(max(0.0, x), max(0.0, self._image.width - width))
            top = min(max(0.0, y), max(0.0, self._image.height - height))
            places.append((left, top, left + width, top + height))
        return _Word(text, tuple(places), colour, text_px, of, legend)

    def _write(self, draw: ImageDraw.ImageDraw, word: "_Word", place: _Rectangle) -> None:
        left, top, right, bottom = place
        draw.rectangle((left, top, right - 1, bottom - 1), fill=word.colour)
        ink = (0, 0, 0) if is_light(word.colour) else (255, 255, 255)
        draw.text(
            ((left + right) / 2, (top + bottom) / 2),
            word.text,
            font=font(word.text, word.text_px),
            fill=ink,
            anchor="mm",
        )

    def _text_size(self, text: str, text_px: int | None = None) -> tuple[float, float]:
        text_px = text_px or self._text_px
        return font(text, text_px).getlength(text) + 6, font("", text_px).getbbox("Ag")[3] + 4

    def _dashes(
        self,
        draw: ImageDraw.ImageDraw,
        start: tuple[float, float],
        stop: tuple[float, float],
        colour: Rgb,
        line: int,
    ) -> None:
        length = math.dist(start, stop)
        dash = 4.0 * line
        for at in np.arange(0, length, 2 * dash):
            near, far = at / length, min(1.0, (at + dash) / length)
            ends = [
                tuple(a + (b - a) * share for a, b in zip(start, stop, strict=True))
                for share in (near, far)
            ]
            draw.line(ends, fill=colour, width=line)

    def _enlarged(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        assert array.shape == self._hw
        return array.repeat(self._scale, axis=0).repeat(self._scale, axis=1)


@dataclass(frozen=True, slots=True)
class _Word:
    """A label, its possible positions (best first), its background colour, and its object, if
    any.
    """

    text: str
    places: tuple[_Rectangle, ...]
    colour: Rgb
    text_px: int
    of: _Rectangle | None
    legend: str


def _area(of: _Rectangle) -> float:
    return max(0.0, of[2] - of[0]) * max(0.0, of[3] - of[1])


def _hidden(place: _Rectangle, objects: NDArray[np.float64]) -> int:
    """Number of objects (N, 4) with more than half of their area below a position."""
    shared = np.minimum(place[2:], objects[:, 2:]) - np.maximum(place[:2], objects[:, :2])
    areas = (objects[:, 2:] - objects[:, :2]).clip(0).prod(axis=1)
    return int((shared.clip(0).prod(axis=1) > 0.5 * areas).sum())


def _overlap(one: _Rectangle, other: _Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
