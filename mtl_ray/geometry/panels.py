"""Images side by side, shrunk, and as files."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mtl_ray.geometry.appearance import font

SINGLE_PX, PANEL_PX = 1200, 600
"""Width of one image below another one, and of each of several: names on them can be read."""
TITLE_PX = 15
"""Text height of the titles in a grid."""
_PAPER = (250, 250, 250)
_INK = (30, 30, 30)


def grid(
    images: Sequence[NDArray[np.uint8]], columns: int, titles: Sequence[str] = (), gap_px: int = 8
) -> NDArray[np.uint8]:
    """Images in a grid with ``columns`` columns on white, centred in their cells, with titles
    below.

    Args:
        images: (H, W, 3) uint8 RGB each, of any size.
        columns: number of columns.
        titles: one per image, or none.
        gap_px: margin around each cell.
    """
    room = 22 if titles else 0
    cell_h, cell_w = max(each.shape[0] for each in images), max(each.shape[1] for each in images)
    rows = math.ceil(len(images) / columns)
    columns = min(columns, len(images))
    sheet = Image.new(
        "RGB",
        (columns * (cell_w + gap_px) + gap_px, rows * (cell_h + room + gap_px) + gap_px),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    for index, each in enumerate(images):
        top, left = (
            gap_px + (index // columns) * (cell_h + room + gap_px),
            gap_px + (index % columns) * (cell_w + gap_px),
        )
        sheet.paste(
            Image.fromarray(each),
            (left + (cell_w - each.shape[1]) // 2, top + (cell_h - each.shape[0]) // 2),
        )
        if titles:
            title = _shortened(titles[index], cell_w)
            draw.text(
                (left + cell_w / 2, top + cell_h + room / 2),
                title,
                font=font(title, TITLE_PX),
                fill=_INK,
                anchor="mm",
            )
    return np.asarray(sheet).copy()


def beneath_px(count: int) -> int:
    """The width that each of ``count`` images has below another one."""
    return SINGLE_PX if count == 1 else PANEL_PX


def beneath(
    image: NDArray[np.uint8], others: Sequence[tuple[str, NDArray[np.uint8]]]
) -> NDArray[np.uint8]:
    """An image, and below it further ones with titles, up to three in a row, each at most
    ``beneath_px`` wide or its share of the image; the image itself if there are none.
    """
    if not others:
        return image
    columns = min(3, len(others))
    width = max(image.shape[1] // columns, beneath_px(len(others)))
    below = grid(
        [shrunk(each, width) for _, each in others], columns, [title for title, _ in others]
    )
    wide = max(image.shape[1], below.shape[1])
    sheet = np.full((image.shape[0] + below.shape[0], wide, 3), _PAPER, np.uint8)
    for top, each in ((0, image), (image.shape[0], below)):
        left = (wide - each.shape[1]) // 2
        sheet[top : top + each.shape[0], left : left + each.shape[1]] = each
    return sheet


def same_size(images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Pads images (H, W, 3) to the maximum height and width, each centred."""
    height, width = (max((each.shape[side] for each in images), default=0) for side in (0, 1))
    sheets = [np.full((height, width, 3), _PAPER, np.uint8) for _ in images]
    for sheet, each in zip(sheets, images, strict=True):
        top, left = (height - each.shape[0]) // 2, (width - each.shape[1]) // 2
        sheet[top : top + each.shape[0], left : left + each.shape[1]] = each
    return sheets


def shrunk(image: NDArray[np.uint8], longest_px: int) -> NDArray[np.uint8]:
    """The image, resized if its longer side exceeds ``longest_px``."""
    height, width = image.shape[:2]
    if max(height, width) <= longest_px:
        return image
    scale = longest_px / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def pixels(file: bytes) -> NDArray[np.uint8]:
    """Decodes an image file that this package wrote, to (H, W, 3) uint8 RGB."""
    found = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return np.ascontiguousarray(found[:, :, ::-1])


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """The JPEG file of an image (H, W, 3) uint8 RGB."""
    done, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert done
    return bytes(data)


def _shortened(text: str, width_px: int) -> str:
    """The end of a text that is too long; file names differ more at their ends."""
    letters = font(text, TITLE_PX)
    if letters.getlength(text) <= width_px:
        return text
    while len(text) > 1 and letters.getlength("..." + text) > width_px:
        text = text[1:]
    return "..." + text
