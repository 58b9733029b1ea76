"""Index PNGs: pictures whose pixel values are classes, palette pictures included, become the semantic map of a Sample."""

import io
import struct
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtl_ray import storage
from mtl_ray.picture_header import MAX_PIXELS, check_pixels
from mtl_ray.samples import IGNORE_INDEX
from mtl_ray.sources.picture import Picture
from mtl_ray.sources.source import Reject, UnreadableError


def read_index_png(uri: str, file: str, picture: Picture, num_classes: int, ignore: Sequence[int]) -> tuple[bytes, list[Reject]]:
    """The semantic map of a picture as the PNG that a Sample carries.

    Args:
        uri: where the index PNG lies.
        file: what to call it in a reject.
        picture: what it belongs to.
        num_classes: values from here on have no name; their pixels become ``IGNORE_INDEX`` and each value a Reject.
        ignore: values that mean "no class"; these are no rejects.

    Raises:
        UnreadableError: if it is not there, cannot be decoded, or is not as large as the picture.
    """
    classes = load_index_png(uri, file)
    if classes.shape != (picture.height, picture.width):
        height, width = classes.shape
        raise UnreadableError(file, f"the map is {width} x {height}, its picture {picture.width} x {picture.height}")
    counts = np.bincount(classes.ravel(), minlength=256)
    table = np.arange(256, dtype=np.uint8)
    table[num_classes:] = IGNORE_INDEX
    table[list(ignore)] = IGNORE_INDEX
    unnamed = [value for value in range(num_classes, 255) if counts[value] and value not in ignore]
    rejects = [Reject(file, f"value {value}", f"{counts[value]} pixels of a value without a class; they are ignored") for value in unnamed]
    return encode_index_png(table[classes]), rejects


def load_index_png(uri: str, file: str) -> NDArray[np.uint8]:
    """The values of an index PNG, (H, W) uint8.

    Raises:
        UnreadableError: if it is not there or cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(storage.read(uri))) as opened:
            check_pixels(opened.height, opened.width, MAX_PIXELS)
            values = np.asarray(opened)
    except FileNotFoundError:
        raise UnreadableError(file, "listed but not there") from None
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise UnreadableError(file, f"not a whole picture: {error}") from None
    if values.ndim != 2:
        raise UnreadableError(file, f"has {values.shape[2]} channels; a map has one, of class indices")
    if values.min() < 0 or values.max() > 255:
        raise UnreadableError(file, f"has the value {values.max()}; class indices go up to 255")
    return np.ascontiguousarray(values, np.uint8)


def encode_index_png(classes: NDArray[np.uint8]) -> bytes:
    """A grey PNG of (H, W) uint8 class indices."""
    encoded, data = cv2.imencode(".png", classes)
    assert encoded
    return data.tobytes()


def palette_of(uri: str, num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """The RGB colours of the first indices of a palette picture; nothing for any other."""
    try:
        with Image.open(io.BytesIO(storage.read(uri))) as opened:
            palette = opened.getpalette("RGB") if opened.mode == "P" else None
    except (OSError, ValueError, SyntaxError):
        return ()  # the reader rejects the file
    if palette is None or len(palette) < 3 * num_classes:
        return ()
    return tuple((palette[at], palette[at + 1], palette[at + 2]) for at in range(0, 3 * num_classes, 3))
