"""Drawing on images: boxes, masks, points and words that can be read also on an image of 32 pixels; several side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mtl_ray.geometry.figures import Colour, font, is_light

LEAST_SIDE = 320
"""Images whose longer side has fewer pixels are enlarged by a whole number before anything is drawn on them."""
LEAST_TEXT_PX = 10
FEW_OBJECTS = 8
"""Up to so many objects each has its word; of more, those have none that are smaller than it, and a legend says their colours."""
TITLE_PX = 15
"""Height of the letters below images in a grid."""
_Rectangle = tuple[float, float, float, float]
_PAPER = (250, 250, 250)
_INK = (30, 30, 30)


class Drawing:
    """An image that is drawn on. Coordinates are those of the image as it was given, whatever it was enlarged by."""

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
        """(H * k, W * k, 3) uint8 RGB, k the enlargement.

        Words are written last, those that came first before others, where they hide the fewest other objects; one that would cover
        another is left out, its colour tells. Among many objects so are those that are larger than their object.
        """
        finished = self._image.copy()
        draw = ImageDraw.Draw(finished)
        taken: list[_Rectangle] = []
        objects = np.array(self._objects).reshape(-1, 4)
        for word in self._legible():
            free = [place for place in word.places if not any(_overlap(place, other) for other in taken)]
            if free:
                taken.append(min(free, key=lambda place: _hidden(place, objects)))
                self._write(draw, word, taken[-1])
        return np.asarray(finished).copy()

    def _legible(self) -> "list[_Word]":
        """The words that are worth writing, and a legend for the objects whose words are not."""
        if sum(word.of is not None for word in self._words) <= FEW_OBJECTS:
            return self._words
        kept = [word for word in self._words if word.of is None or _area(word.places[0]) <= _area(word.of)]
        named = {word.colour for word in kept if word.of is not None}
        missing = {word.legend: word.colour for word in self._words if word.legend and word.colour not in named}
        return [*kept, *(self._legend_word(name, colour, line) for line, (name, colour) in enumerate(missing.items()))]

    def _legend_word(self, name: str, colour: Colour, line: int) -> "_Word":
        height = self._text_size(name, self._least_text_px)[1]
        right, bottom = float(self._image.width), self._image.height - (line + 1) * height
        corners = [(x, y) for y in (line * height, bottom) for x in (0.0, right)]
        return self._word(name, corners, colour, self._least_text_px)

    def tint(self, mask: NDArray[np.bool_] | NDArray[np.uint8], colour: Colour, strength: float = 0.5) -> None:
        """Mixes a colour into the pixels of a mask (H, W) and draws its outline."""
        large = self._enlarged(mask.astype(np.uint8))
        pixels = np.asarray(self._image).copy()
        inside = large > 0
        pixels[inside] = pixels[inside] * (1 - strength) + np.array(colour) * strength
        outlines, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(pixels, outlines, -1, colour, max(1, self._line // 2), cv2.LINE_AA)
        self._image = Image.fromarray(pixels)

    def tint_classes(self, classes: NDArray[np.uint8], colours: Sequence[Colour], strength: float = 0.6) -> None:
        """Mixes the colour of each pixel's class (H, W) into it; pixels without a class become dark and grey."""
        table = np.zeros((256, 3), np.float32)
        table[: len(colours)] = colours
        large = self._enlarged(classes)
        pixels = np.asarray(self._image).astype(np.float32)
        mixed = pixels * (1 - strength) + table[large] * strength
        nothing = large >= len(colours)
        mixed[nothing] = pixels[nothing].mean(axis=1, keepdims=True) * 0.35
        self._image = Image.fromarray(mixed.astype(np.uint8))

    def name_regions(self, classes: NDArray[np.uint8], names: Sequence[str], colours: Sequence[Colour], least_share: float = 0.004) -> None:
        """Writes the name of each class into the thickest part of its largest region, where that is large enough."""
        for index in np.unique(classes[classes < len(names)]):
            count, regions, sizes, _ = cv2.connectedComponentsWithStats((classes == index).astype(np.uint8))
            if count < 2:
                continue
            largest = 1 + int(sizes[1:, cv2.CC_STAT_AREA].argmax())
            if sizes[largest, cv2.CC_STAT_AREA] < least_share * classes.size:
                continue
            depth = cv2.distanceTransform(np.pad((regions == largest).astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
            y, x = np.unravel_index(int(depth.argmax()), depth.shape)
            width, height = self._text_size(names[index])
            corner = (float(x) + 0.5) * self._scale - width / 2, (float(y) + 0.5) * self._scale - height / 2
            self._note(names[index], [corner], colours[index])

    def box(self, box_xyxy: NDArray[np.float32], text: str, colour: Colour, *, dashed: bool = False, legend: str = "") -> None:
        """Draws a box with a word above it, or below or inside where there is no room.

        Args:
            box_xyxy: (4,) pixels of the image.
            text: the word; empty for none.
            colour: of the box, and the ground of the word.
            dashed: whether the line has gaps.
            legend: what the colour means, for a legend where objects are many and too small for words.
        """
        x1, y1, x2, y2 = (float(value) * self._scale for value in box_xyxy)
        draw = ImageDraw.Draw(self._image)
        side = max(min(x2 - x1, y2 - y1), 1.0)
        line = int(np.clip(side / 6, 1, self._line))
        if dashed:
            for start, stop in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
                self._dashes(draw, start, stop, colour, line)
        else:
            draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=line)
        self._objects.append((x1, y1, x2, y2))
        if text:
            text_px = int(np.clip(side / 2.5, self._least_text_px, self._text_px))
            height = self._text_size(text, text_px)[1]
            corners = [(x1, y1 - height), (x1, y2), (x1, y1)] if y1 >= height else [(x1, y1), (x1, y2)]
            self._words.append(self._word(text, corners, colour, text_px, of=(x1, y1, x2, y2), legend=legend))

    def pose(self, points: NDArray[np.float32], skeleton: Sequence[tuple[int, int]], colour: Colour) -> None:
        """Draws the points (K, 3) x, y, visibility that are known (above 0), and the lines between them; hidden ones (1) hollow."""
        draw = ImageDraw.Draw(self._image)
        known = points[:, 2] > 0
        placed = [(float(x) * self._scale, float(y) * self._scale) for x, y in points[:, :2]]
        for first, second in skeleton:
            if 0 <= min(first, second) <= max(first, second) < len(known) and known[first] and known[second]:
                draw.line([placed[first], placed[second]], fill=colour, width=self._line)
        radius = self._line * 1.4
        for index in np.flatnonzero(known):
            x, y = placed[index]
            inside = None if points[index, 2] < 1.5 else colour
            draw.ellipse(
                (x - radius, y - radius, x + radius, y + radius), fill=inside, outline=(255, 255, 255), width=max(1, self._line // 2)
            )

    def caption(self, lines: Sequence[tuple[str, Colour]]) -> None:
        """Writes words into the top left corner, one line each, until the image is full."""
        height = self._text_size("A")[1]
        for line, (text, colour) in enumerate(lines):
            if (line + 1) * height <= self._image.height:
                self._note(text, [(0, line * height)], colour)

    def _note(self, text: str, corners: Sequence[tuple[float, float]], colour: Colour) -> None:
        """Remembers a word for later, to be written with its top left corner at a place that is still free."""
        self._words.append(self._word(text, corners, colour, self._text_px))

    def _word(
        self,
        text: str,
        corners: Sequence[tuple[float, float]],
        colour: Colour,
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
        draw.text(((left + right) / 2, (top + bottom) / 2), word.text, font=font(word.text, word.text_px), fill=ink, anchor="mm")

    def _text_size(self, text: str, text_px: int | None = None) -> tuple[float, float]:
        text_px = text_px or self._text_px
        return font(text, text_px).getlength(text) + 6, font("", text_px).getbbox("Ag")[3] + 4

    def _dashes(self, draw: ImageDraw.ImageDraw, start: tuple[float, float], stop: tuple[float, float], colour: Colour, line: int) -> None:
        length = math.dist(start, stop)
        dash = 4.0 * line
        for at in np.arange(0, length, 2 * dash):
            near, far = at / length, min(1.0, (at + dash) / length)
            ends = [tuple(a + (b - a) * share for a, b in zip(start, stop, strict=True)) for share in (near, far)]
            draw.line(ends, fill=colour, width=line)

    def _enlarged(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        assert array.shape == self._hw
        return array.repeat(self._scale, axis=0).repeat(self._scale, axis=1)


@dataclass(frozen=True, slots=True)
class _Word:
    """A word, where it may be written (the best place first), the colour of its ground, and its object, if it is that of one."""

    text: str
    places: tuple[_Rectangle, ...]
    colour: Colour
    text_px: int
    of: _Rectangle | None
    legend: str


def _area(of: _Rectangle) -> float:
    return max(0.0, of[2] - of[0]) * max(0.0, of[3] - of[1])


def _hidden(place: _Rectangle, objects: NDArray[np.float64]) -> int:
    """How many objects (N, 4) have half of their area below a place."""
    shared = np.minimum(place[2:], objects[:, 2:]) - np.maximum(place[:2], objects[:, :2])
    areas = (objects[:, 2:] - objects[:, :2]).clip(0).prod(axis=1)
    return int((shared.clip(0).prod(axis=1) > 0.5 * areas).sum())


def _overlap(one: _Rectangle, other: _Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def grid(images: Sequence[NDArray[np.uint8]], columns: int, titles: Sequence[str] = (), gap_px: int = 8) -> NDArray[np.uint8]:
    """Images side by side in rows of ``columns``, on white, each centred in its cell with its title below.

    Args:
        images: (H, W, 3) uint8 RGB each, of any sizes.
        columns: of the grid.
        titles: one each, or none.
        gap_px: white pixels around each cell.
    """
    room = 22 if titles else 0
    cell_h, cell_w = max(each.shape[0] for each in images), max(each.shape[1] for each in images)
    rows = math.ceil(len(images) / columns)
    columns = min(columns, len(images))
    sheet = Image.new("RGB", (columns * (cell_w + gap_px) + gap_px, rows * (cell_h + room + gap_px) + gap_px), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, each in enumerate(images):
        top, left = gap_px + (index // columns) * (cell_h + room + gap_px), gap_px + (index % columns) * (cell_w + gap_px)
        sheet.paste(Image.fromarray(each), (left + (cell_w - each.shape[1]) // 2, top + (cell_h - each.shape[0]) // 2))
        if titles:
            title = _shortened(titles[index], cell_w)
            draw.text((left + cell_w / 2, top + cell_h + room / 2), title, font=font(title, TITLE_PX), fill=_INK, anchor="mm")
    return np.asarray(sheet).copy()


def same_size(images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """The images (H, W, 3), each in the middle of a sheet as high as the highest and as wide as the widest of them."""
    height, width = (max((each.shape[side] for each in images), default=0) for side in (0, 1))
    sheets = [np.full((height, width, 3), _PAPER, np.uint8) for _ in images]
    for sheet, each in zip(sheets, images, strict=True):
        top, left = (height - each.shape[0]) // 2, (width - each.shape[1]) // 2
        sheet[top : top + each.shape[0], left : left + each.shape[1]] = each
    return sheets


def shrunk(image: NDArray[np.uint8], longest_px: int) -> NDArray[np.uint8]:
    """The image at a size whose longer side has at most ``longest_px``."""
    height, width = image.shape[:2]
    if max(height, width) <= longest_px:
        return image
    scale = longest_px / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def pixels(file: bytes) -> NDArray[np.uint8]:
    """The image in a file of our own making, (H, W, 3) uint8 RGB."""
    found = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return np.ascontiguousarray(found[:, :, ::-1])


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """The file of an image (H, W, 3) uint8 RGB."""
    done, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert done
    return bytes(data)


def _shortened(text: str, width_px: int) -> str:
    """The end of a text that is too long, which tells file names apart better than their beginning."""
    letters = font(text, TITLE_PX)
    if letters.getlength(text) <= width_px:
        return text
    while len(text) > 1 and letters.getlength("..." + text) > width_px:
        text = text[1:]
    return "..." + text
