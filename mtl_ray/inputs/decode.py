"""Encoded images become arrays: any common file to (H, W, 3) uint8 RGB as a viewer shows it, index
images to class maps.

The header is read first, so that a file that claims more pixels than allowed is refused before
anything is allocated for it.
"""

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from mtl_ray.inputs.image_file import load_image, open_image, orientation_of
from mtl_ray.inputs.image_header import (
    JPEG,
    MAX_PIXELS,
    PNG,
    JpegHeader,
    PngHeader,
    check_pixels,
    jpeg_header,
    png_header,
)

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
    """Decodes an image as it is shown.

    JPEG (grey, colour, CMYK and YCCK, Adobe's inverted ones too), PNG (grey, palette, alpha, 16
    bits) and the other formats of ``image_formats.FORMATS``. EXIF orientation is applied. Alpha is
    dropped, as Pillow's ``convert("RGB")`` does: colours stay as they are stored. Of 16 bits the
    upper eight are kept. Of several images in one file the first is taken.

    Args:
        data: the file's bytes.
        max_pixels: width times height may not be above this.

    Returns:
        (H, W, 3) uint8 RGB, contiguous.

    Raises:
        TooManyPixelsError: if the header says more pixels than allowed; nothing was allocated for
            them.
        ValueError: one sentence, if the file is no image, or is cut short or damaged.
    """
    if data.startswith(JPEG):
        header = jpeg_header(data)
        check_pixels(header.height, header.width, max_pixels)
        decoded = _decode_jpeg(data, header)
    elif data.startswith(PNG):
        png = png_header(data)
        check_pixels(png.height, png.width, max_pixels)
        decoded = _decode_png(data, png)
    else:
        decoded = None
    return _decode_with_pillow(data, max_pixels) if decoded is None else decoded


def decode_semantic(data: bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decodes an image whose pixels are class indices: palette images give their indices, not their
    colours.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: if it cannot be read, has several channels, or an index above 255.
    """
    opened = open_image(data, max_pixels)
    if opened.mode not in ("P", "L", "1", "I", "I;16", "I;16B"):
        raise ValueError(
            f"a semantic map must have one channel of class indices, this image is {opened.mode}"
        )
    indices = np.asarray(load_image(opened))
    if indices.dtype != np.uint8:
        if indices.size and (indices.max() > 255 or indices.min() < 0):
            raise ValueError(
                f"a semantic map may have class indices up to 255, this one has {indices.max()}"
            )
        indices = indices.astype(np.uint8)
    return np.ascontiguousarray(indices)


def _decode_jpeg(data: bytes, header: JpegHeader) -> NDArray[np.uint8] | None:
    """None for what is unusual: simplejpeg is strict, and Pillow tells the harmless from the
    damaged.
    """
    if header.components not in (1, 3):
        return None
    try:
        decoded = simplejpeg.decode_jpeg(data)
    except Exception:
        return None
    return np.ascontiguousarray(_TURNS[header.orientation](decoded))


def _decode_png(data: bytes, header: PngHeader) -> NDArray[np.uint8] | None:
    """None if OpenCV does not read it; Pillow says why."""
    try:
        decoded = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except Exception:
        return None
    if decoded is None:
        return None
    return np.ascontiguousarray(_TURNS[header.orientation](np.asarray(decoded, np.uint8)))


def _decode_with_pillow(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    opened = load_image(open_image(data, max_pixels))
    orientation = orientation_of(opened, data)
    return np.ascontiguousarray(_TURNS[orientation](_rgb(opened)))


def _rgb(opened: Image.Image) -> NDArray[np.uint8]:
    if opened.mode.startswith("I;16") or opened.mode == "I":
        grey = (np.asarray(opened).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    try:
        return np.array(opened.convert("RGB"), np.uint8)
    except Exception as error:
        raise ValueError(
            f"the image is damaged: its pixels of {opened.mode} do not become RGB: {error}"
        ) from None
