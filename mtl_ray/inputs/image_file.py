"""The one place that opens encoded images whose bytes come from outside.

Only the formats of ``image_formats.FORMATS`` are opened, the stated size is checked before a
decoder sees the file, and whatever a decoder raises becomes one ValueError. Imports neither torch
nor ray, so that every layer may use it.
"""

import io
import re

from PIL import Image

from mtl_ray.inputs.image_formats import check_exif, image_format, stored_size
from mtl_ray.inputs.image_header import (
    MAX_PIXELS,
    check_pixels,
    exif_orientation,
    jpeg_header,
    png_header,
)

# Pillow's own limit would refuse what a caller allows; ``open_image`` checks the caller's limit
# first
Image.MAX_IMAGE_PIXELS = None

NO_LIMIT = 1 << 40
"""``max_pixels`` for images whose size was checked before they were stored."""
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_EXIF_BLOCKS = re.compile(rb"II\*\0|MM\0\*")


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens an image without decoding its pixels.

    Args:
        data: the file's bytes.
        max_pixels: width times height may not be above this.

    Returns:
        The image; of several in one file the first. ``load_image`` decodes it.

    Raises:
        TooManyPixelsError: if the header says more pixels than allowed.
        ValueError: one sentence, if it is in no known format, its header is damaged, or its pixels
            are floating-point numbers, whose range no header says.
    """
    kind = image_format(data)
    check_pixels(*stored_size(data, kind), max_pixels)
    if kind == "AVIF":  # Pillow reads its EXIF while it opens
        for found in _EXIF_BLOCKS.finditer(data):
            check_exif(data[found.start() : found.start() + 1_000_000])
    try:
        opened = Image.open(io.BytesIO(data), formats=(kind,))
    except Exception as error:  # any: decoders raise what they like
        raise ValueError(f"the image cannot be read: {_reason(error, kind)}") from None
    check_pixels(opened.height, opened.width, max_pixels)
    if opened.mode == "F":
        raise ValueError(
            "the pixels are floating-point numbers of unknown range. Fix: write 8 or 16 bits"
        )
    return opened


def load_image(opened: Image.Image) -> Image.Image:
    """Decodes what ``open_image`` opened.

    Raises:
        ValueError: if it is damaged or cut short.
    """
    try:
        opened.load()
    except Exception as error:
        raise ValueError(f"the image is damaged: {_reason(error, str(opened.format))}") from None
    return opened


def orientation_of(opened: Image.Image, data: bytes) -> int:
    """How an opened image is turned when it is shown: EXIF orientation 1 to 8, by EXIF or else by
    XMP.

    A TIFF is turned by Pillow itself. Damaged EXIF is no orientation, as viewers take it.
    """
    if opened.format in ("JPEG", "MPO"):
        return jpeg_header(data).orientation
    if opened.format == "PNG":
        return png_header(data).orientation
    if opened.format == "TIFF":
        return 1
    exif = opened.info.get("exif")
    if isinstance(exif, bytes):
        return exif_orientation(exif.removeprefix(b"Exif\0\0"))
    xmp = opened.info.get("xmp")
    found = _XMP_ORIENTATION.search(xmp) if isinstance(xmp, bytes) else None
    return int(found[1]) if found else 1


def shown_size(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width in pixels of an encoded image as it is shown (EXIF orientation applied),
    without decoding it.

    Raises:
        TooManyPixelsError: if the header says more pixels than allowed.
        ValueError: if it is in no known format, or its header is damaged.
    """
    kind = image_format(data)
    if kind in ("JPEG", "PNG"):
        header = jpeg_header(data) if kind == "JPEG" else png_header(data)
        height, width, turned = header.height, header.width, header.orientation >= 5
        check_pixels(height, width, max_pixels)
    else:
        opened = open_image(data, max_pixels)
        height, width, turned = opened.height, opened.width, orientation_of(opened, data) >= 5
    return (width, height) if turned else (height, width)


def _reason(error: Exception, kind: str) -> str:
    if "cannot identify image file" in str(error):
        return f"its {kind} header is damaged"
    return " ".join(str(error).split()) or type(error).__name__
