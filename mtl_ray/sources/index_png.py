"""Index PNGs: pictures whose pixel values are classes, palette pictures included, become the semantic map of a Sample."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_ray import storage
from mtl_ray.image_file import load_image, open_image
from mtl_ray.picture_header import MAX_PIXELS
from mtl_ray.samples import IGNORE_INDEX
from mtl_ray.sources.picture import Picture
from mtl_ray.sources.source import Reject, UnreadableError

_PLACES = np.array([1 << 16, 1 << 8, 1])
NO_NAME = -1
"""In a table of meanings: a value of which nobody said what it is."""


def meaning_of(num_classes: int, ignore: Sequence[int] = (IGNORE_INDEX,), first: int = 0) -> NDArray[np.int16]:
    """What each of the 256 values of an index PNG is: a class index, ``IGNORE_INDEX`` for none, or ``NO_NAME``.

    Args:
        num_classes: how many classes have names.
        ignore: values that mean "no class".
        first: the value of class 0; those before it mean "no class".
    """
    meaning: NDArray[np.int16] = np.full(256, NO_NAME, np.int16)
    known = min(num_classes, 256 - first)
    meaning[first : first + known] = np.arange(known)
    meaning[[*range(first), IGNORE_INDEX, *ignore]] = IGNORE_INDEX
    return meaning


def read_index_png(uri: str, file: str, picture: Picture, meaning: NDArray[np.int16]) -> tuple[bytes, list[Reject]]:
    """The semantic map of a picture as the PNG that a Sample carries.

    Args:
        uri: where the index PNG lies.
        file: what to call it in a reject.
        picture: what it belongs to.
        meaning: see ``meaning_of``; pixels of a value without a name become ``IGNORE_INDEX`` and each such value a Reject.

    Raises:
        UnreadableError: if it is not there, cannot be decoded, or is not as large as the picture.
    """
    classes = load_index_png(uri, file)
    _check_size(classes, file, picture)
    counts = np.bincount(classes.ravel(), minlength=256)
    unnamed = np.flatnonzero((meaning == NO_NAME) & (counts > 0)).tolist()
    rejects = [Reject(file, f"value {value}", f"{counts[value]} pixels of a value without a class; they are ignored") for value in unnamed]
    table = np.where(meaning == NO_NAME, IGNORE_INDEX, meaning).astype(np.uint8)
    return encode_index_png(table[classes]), rejects


def read_colour_map(uri: str, file: str, picture: Picture, classes: Mapping[tuple[int, ...], int]) -> tuple[bytes, list[Reject]]:
    """The same of a map in which colours stand for classes.

    Args:
        uri: where the map lies.
        file: what to call it in a reject.
        picture: what it belongs to.
        classes: class indices, or ``IGNORE_INDEX``, by red, green and blue; pixels of other colours become a Reject, and ``IGNORE_INDEX``.

    Raises:
        UnreadableError: as ``read_index_png``.
    """
    colours = load_values(uri, file, mode="RGB")
    _check_size(colours, file, picture)
    codes = colours.astype(np.int64) @ _PLACES
    table = {int(np.array(colour) @ _PLACES): index for colour, index in classes.items()}
    known = np.array(sorted(table), np.int64)
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    named = known[place] == codes
    found = np.where(named, np.array([table[code] for code in known.tolist()], np.uint8)[place], IGNORE_INDEX).astype(np.uint8)
    if named.all():
        return encode_index_png(found), []
    others = np.unique(codes[~named])
    first = " ".join(str(int(others[0]) >> shift & 255) for shift in (16, 8, 0))
    reason = f"{(~named).sum()} pixels of {len(others)} colours without a class, such as {first}; they are ignored"
    return encode_index_png(found), [Reject(file, "", reason)]


def _check_size(values: NDArray[Any], file: str, picture: Picture) -> None:
    height, width = values.shape[:2]
    if (height, width) != (picture.height, picture.width):
        raise UnreadableError(file, f"the map is {width} x {height}, its picture {picture.width} x {picture.height}")


def load_index_png(uri: str, file: str) -> NDArray[np.uint8]:
    """The values of an index PNG, (H, W) uint8.

    Raises:
        UnreadableError: if it is not there or cannot be decoded.
    """
    values = load_values(uri, file)
    if values.ndim != 2:
        raise UnreadableError(
            file, f"has {values.shape[2]} channels; a map has one, of class indices (semantic_png has --values for colours)"
        )
    if values.min() < 0 or values.max() > 255:
        raise UnreadableError(file, f"has the value {values.max()}; class indices go up to 255")
    return np.ascontiguousarray(values, np.uint8)


def load_values(uri: str, file: str, mode: str | None = None, *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """The values of a picture as they are stored: indices of a palette, 16 bits, or several channels; or as another of Pillow's modes.

    Raises:
        UnreadableError: if it is not there or cannot be decoded.
    """
    try:
        opened = load_image(open_image(storage.read(uri), max_pixels))
        return np.asarray(opened.convert(mode) if mode else opened)
    except FileNotFoundError:
        raise UnreadableError(file, "listed but not there") from None
    except (OSError, ValueError) as error:
        raise UnreadableError(file, f"not a whole picture: {error}") from None


def encode_index_png(classes: NDArray[np.uint8]) -> bytes:
    """A grey PNG of (H, W) uint8 class indices."""
    encoded, data = cv2.imencode(".png", classes)
    assert encoded
    return data.tobytes()


def palette_of(uri: str, num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """The RGB colours of the first indices of a palette picture; nothing for any other."""
    try:
        opened = open_image(storage.read(uri))
        palette = opened.getpalette("RGB") if opened.mode == "P" else None
    except (OSError, ValueError):
        return ()  # the reader rejects the file
    if palette is None or len(palette) < 3 * num_classes:
        return ()
    return tuple((palette[at], palette[at + 1], palette[at + 2]) for at in range(0, 3 * num_classes, 3))
