"""Index PNGs: converts images whose pixel values are classes, also palette images, to semantic
maps.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.inputs.image_file import load_image, open_image
from mtl_ray.inputs.image_header import MAX_PIXELS
from mtl_ray.samples import IGNORE_INDEX, EncodedImage
from mtl_ray.sources.source import SkippedItem, UnreadableError

_PLACES = np.array([1 << 16, 1 << 8, 1])
_UNNAMED = "pixels of a value without a class, which are ignored"
_AT_A_TIME = 4
LOOKED_AT = 32
"""Number of maps that are decoded for checks; all are decoded only if these look invalid."""
NO_NAME = -1
"""In a table of meanings: a value without a name."""


def meaning_of(
    num_classes: int, ignore: Sequence[int] = (IGNORE_INDEX,), first: int = 0
) -> NDArray[np.int16]:
    """(256,) table of the values of an index PNG: a class index, ``IGNORE_INDEX``, or ``NO_NAME``.

    Args:
        num_classes: number of classes.
        ignore: values that mean "no class".
        first: the value of class 0; smaller values mean "no class".
    """
    meaning: NDArray[np.int16] = np.full(256, NO_NAME, np.int16)
    known = min(num_classes, 256 - first)
    meaning[first : first + known] = np.arange(known)
    meaning[[*range(first), IGNORE_INDEX, *ignore]] = IGNORE_INDEX
    return meaning


def read_index_png(
    uri: str, file: str, image: EncodedImage, meaning: NDArray[np.int16]
) -> tuple[bytes, list[SkippedItem]]:
    """Reads an index PNG as the semantic map (PNG) of a Sample.

    Args:
        uri: of the index PNG.
        file: name of the file, for skipped items.
        image: the image of the map.
        meaning: see ``meaning_of``; values without a name become ``IGNORE_INDEX``, with a
            SkippedItem each.

    Raises:
        UnreadableError: if it is missing, cannot be decoded, or has another size than the image.
    """
    return map_values(load_index_png(uri, file), file, image, meaning)


def map_values(
    classes: NDArray[np.uint8], file: str, image: EncodedImage, meaning: NDArray[np.int16]
) -> tuple[bytes, list[SkippedItem]]:
    """Converts loaded values; see ``read_index_png``."""
    _check_size(classes, file, image)
    counts = np.bincount(classes.ravel(), minlength=256)
    unnamed = np.flatnonzero((meaning == NO_NAME) & (counts > 0)).tolist()
    skipped = [
        SkippedItem(file, f"value {value}", f"{_UNNAMED}: {counts[value]} pixels")
        for value in unnamed
    ]
    table = np.where(meaning == NO_NAME, IGNORE_INDEX, meaning).astype(np.uint8)
    return encode_index_png(table[classes]), skipped


def map_colours(
    colours: NDArray[np.uint8],
    file: str,
    image: EncodedImage,
    classes: Mapping[tuple[int, ...], int],
) -> tuple[bytes, list[SkippedItem]]:
    """Converts a map in which colours are classes; see ``read_index_png``.

    Args:
        colours: the map, (H, W, 3).
        file: name of the file, for skipped items.
        image: the image of the map.
        classes: class indices, or ``IGNORE_INDEX``, by red, green and blue; other colours become
            ``IGNORE_INDEX``, with a SkippedItem.

    Raises:
        UnreadableError: if it has another size than the image.
    """
    _check_size(colours, file, image)
    codes = colours.astype(np.int64) @ _PLACES
    table = {int(np.array(colour) @ _PLACES): index for colour, index in classes.items()}
    known = np.array(sorted(table), np.int64)
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    named = known[place] == codes
    found = np.where(
        named, np.array([table[code] for code in known.tolist()], np.uint8)[place], IGNORE_INDEX
    ).astype(np.uint8)
    if named.all():
        return encode_index_png(found), []
    others = np.unique(codes[~named])
    first = " ".join(str(int(others[0]) >> shift & 255) for shift in (16, 8, 0))
    reason = (
        f"pixels of colours without a class, which are ignored: {(~named).sum()} pixels of "
        f"{len(others)} colours, such as {first}"
    )
    return encode_index_png(found), [SkippedItem(file, f"{len(others)} colours", reason)]


def _check_size(values: NDArray[Any], file: str, image: EncodedImage) -> None:
    height, width = values.shape[:2]
    if (height, width) != (image.height, image.width):
        raise UnreadableError(
            file,
            f"its size is not that of its image: {width} x {height}, the image {image.width} x "
            f"{image.height}",
        )


def load_index_png(uri: str, file: str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The values of an index PNG, (H, W) uint8.

    Raises:
        UnreadableError: if it is missing or cannot be decoded.
    """
    values = load_values(uri, file, max_pixels=max_pixels)
    if values.ndim != 2:
        what = "a map has one channel, of class indices (semantic_png has --values for colours)"
        raise UnreadableError(file, f"{what}: it has {values.shape[2]}")
    if values.min() < 0 or values.max() > 255:
        raise UnreadableError(
            file, f"class indices go from 0 to 255: it has {values.min()} to {values.max()}"
        )
    return np.ascontiguousarray(values, np.uint8)


def load_values(
    uri: str, file: str, mode: str | None = None, max_pixels: int = MAX_PIXELS
) -> NDArray[Any]:
    """The stored values of an image: palette indices, 16 bits, or several channels; or converted to
    a mode of Pillow.

    Raises:
        UnreadableError: if it is missing, cannot be decoded, or is a JPEG, whose values are not
            exact.
    """
    try:
        opened = open_image(storage.read(uri), max_pixels)
        if opened.format == "JPEG":
            raise ValueError("a JPEG, which changes the values of its pixels; store maps as PNG")
        opened = load_image(opened)
        return np.asarray(opened.convert(mode) if mode else opened)
    except FileNotFoundError:
        raise UnreadableError(file, "listed but not there") from None
    except (OSError, ValueError) as error:
        raise UnreadableError(file, f"not a whole map: {error}") from None


def encode_index_png(classes: NDArray[np.uint8]) -> bytes:
    """A grey PNG of (H, W) uint8 class indices."""
    encoded, data = cv2.imencode(".png", classes)
    assert encoded
    return data.tobytes()


def palette_of(uri: str, num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """The RGB colours of the first indices of a palette image; empty for other images."""
    try:
        opened = open_image(storage.read(uri))
        palette = opened.getpalette("RGB") if opened.mode == "P" else None
    except (OSError, ValueError):
        return ()  # the reader skips the file
    if palette is None or len(palette) < 3 * num_classes:
        return ()
    return tuple(
        (palette[at], palette[at + 1], palette[at + 2]) for at in range(0, 3 * num_classes, 3)
    )


def values_in(uris: Iterable[str], max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """(256,) bool: the values that occur in some index PNGs; unreadable ones are ignored."""
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        present: NDArray[np.bool_] = np.zeros(256, np.bool_)
        for found in pool.map(lambda uri: _values_of(uri, max_pixels), uris):
            present |= found
    return present


def _values_of(uri: str, max_pixels: int) -> NDArray[np.bool_]:
    try:
        return np.bincount(load_index_png(uri, uri, max_pixels).ravel(), minlength=256) > 0
    except UnreadableError:
        return np.zeros(256, np.bool_)  # the reader skips the map


def check_meaning(
    uris: Sequence[str],
    meaning: NDArray[np.int16],
    max_pixels: int = MAX_PIXELS,
    *,
    binary: bool = True,
) -> None:
    """Raises a ValueError if no pixel of the maps has a class.

    Args:
        uris: the maps of a split.
        meaning: see ``meaning_of``.
        max_pixels: a larger map is not decoded.
        binary: whether 255 may be ignored in maps of only 0 and 255.

    Raises:
        ValueError: with the values and a fix.
    """
    is_class = (meaning != NO_NAME) & (meaning != IGNORE_INDEX)
    for part in (uris[:LOOKED_AT], uris):
        present = values_in(part, max_pixels)
        odd = not binary and np.flatnonzero(present).tolist() == [0, 255] and not is_class[255]
        if not present.any() or ((present & is_class).any() and not odd):
            return
    shown = ", ".join(map(str, np.flatnonzero(present)[:10]))
    raise ValueError(
        f"no pixel of the {len(uris)} maps would have a class{' but that of 0' if odd else ''}: "
        f"they have the values {shown}, which are "
        "ignored or have no name; Fix: semantic_png with --values FILE, a line 'VALUE NAME' for "
        "each class, or another --ignore"
    )
