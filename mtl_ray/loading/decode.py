"""Encoded pictures become arrays: any common file to (H, W, 3) uint8 RGB as a viewer shows it, index pictures to class maps.

The header is read first, so that a file that claims more pixels than allowed is refused before anything is allocated for it.
"""

import io
import struct

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mtl_ray.picture_header import JPEG, MAX_PIXELS, PNG, check_pixels, jpeg_header, png_size

_TURNS = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.transpose(1, 0, 2),
    6: lambda shown: shown.transpose(1, 0, 2)[:, ::-1],
    7: lambda shown: shown[::-1, ::-1].transpose(1, 0, 2),
    8: lambda shown: shown.transpose(1, 0, 2)[::-1],
}
"""What the EXIF orientation (CIPA DC-008, tag 0x0112) asks for."""


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decodes a picture as it is shown.

    JPEG (grey, colour, CMYK and YCCK, Adobe's inverted ones too), PNG (grey, palette, alpha, 16 bits) and whatever else Pillow
    reads. EXIF orientation is applied. Alpha is dropped, as Pillow's ``convert("RGB")`` does: colours stay as they are stored. Of
    16 bits the upper eight are kept. Of several pictures in one file the first is taken.

    Args:
        data: the file's bytes.
        max_pixels: width times height may not be above this.

    Returns:
        (H, W, 3) uint8 RGB, contiguous.

    Raises:
        ValueError: one sentence, if the file is no picture, is cut short or damaged, or has too many pixels.
    """
    if data.startswith(JPEG):
        return _decode_jpeg(data, max_pixels)
    if data.startswith(PNG):
        check_pixels(*png_size(data), max_pixels)
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if decoded is not None:
            return np.asarray(decoded, np.uint8)
    return _decode_with_pillow(data, max_pixels)


def decode_semantic(data: bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decodes a picture whose pixels are class indices: palette pictures give their indices, not their colours.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: if it cannot be read, has several channels, or an index above 255.
    """
    opened = _open_with_pillow(data, max_pixels)
    if opened.mode not in ("P", "L", "1", "I", "I;16", "I;16B"):
        raise ValueError(f"a semantic map must have one channel of class indices, this picture is {opened.mode}")
    indices = np.asarray(_load(opened))
    if indices.dtype != np.uint8:
        if indices.size and (indices.max() > 255 or indices.min() < 0):
            raise ValueError(f"a semantic map may have class indices up to 255, this one has {indices.max()}")
        indices = indices.astype(np.uint8)
    return np.ascontiguousarray(indices)


def _decode_jpeg(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    header = jpeg_header(data)
    check_pixels(header.height, header.width, max_pixels)
    if header.components in (1, 3):
        try:
            decoded = simplejpeg.decode_jpeg(data)
        except ValueError:  # strict: anything unusual ends here, and Pillow tells the harmless from the damaged
            return _decode_with_pillow(data, max_pixels)
        return np.ascontiguousarray(_TURNS[header.orientation](decoded))
    return _decode_with_pillow(data, max_pixels)


def _decode_with_pillow(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    opened = _load(_open_with_pillow(data, max_pixels))
    shown = ImageOps.exif_transpose(opened)
    if shown.mode.startswith("I;16") or shown.mode == "I":
        grey = (np.asarray(shown).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=2))
    return np.array(shown.convert("RGB"), np.uint8)


def _open_with_pillow(data: bytes, max_pixels: int) -> Image.Image:
    try:
        opened = Image.open(io.BytesIO(data))
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"the picture cannot be read: {_reason(error)}") from None
    check_pixels(opened.height, opened.width, max_pixels)
    return opened


def _load(opened: Image.Image) -> Image.Image:
    try:
        opened.load()
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, IndexError) as error:
        raise ValueError(f"the picture is damaged: {_reason(error)}") from None
    return opened


def _reason(error: Exception) -> str:
    if "cannot identify image file" in str(error):
        return "it is in no known format"
    return str(error) or type(error).__name__
