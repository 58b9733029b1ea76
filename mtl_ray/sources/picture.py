"""Reading a picture's file for a Sample: its bytes as they are, and its size as shown, without decoding it."""

import io
from dataclasses import dataclass

from PIL import Image

from mtl_ray import storage
from mtl_ray.picture_header import JPEG, MAX_PIXELS, PNG, check_pixels, jpeg_header, png_size
from mtl_ray.sources.source import UnreadableError

_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class ImageRule:
    """How readers take the images of a dataset.

    Attributes:
        max_pixels: an image whose header says more is rejected.
        needed: False where annotations alone are wanted (``--no-pictures``, statistics): an image file that is not there is
            then replaced by no bytes and the size that the annotations state.
    """

    max_pixels: int = MAX_PIXELS
    needed: bool = True


USUAL_RULE = ImageRule()


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture, and its height and width in pixels as it is shown (EXIF orientation applied); no bytes if it is not there."""

    data: bytes
    height: int
    width: int


ABSENT = "image file not there: the size that the annotations state was used and compared with nothing"
"""Note on an image of which only the annotations are at hand."""


def read_picture(uri: str, name: str, rule: ImageRule = USUAL_RULE, stated: tuple[int, int] | None = None) -> Picture:
    """The picture at a URI.

    Args:
        uri: where the file lies.
        name: what to call it in a reject.
        rule: how large it may be, and whether it may be absent.
        stated: height and width as the annotations have them, for an image that may be absent.

    Raises:
        UnreadableError: if it is not there, is no picture, is cut short, or its header claims more pixels than the rule allows.
    """
    try:
        data = storage.read(uri)
    except FileNotFoundError:
        if not rule.needed and stated is not None and min(stated) > 0:
            return Picture(b"", *stated)
        raise UnreadableError(name, "listed but not there") from None
    except (IsADirectoryError, PermissionError) as error:
        raise UnreadableError(name, error.strerror or "cannot be opened") from None
    try:
        height, width = shown_size(data, rule.max_pixels)
    except ValueError as error:
        raise UnreadableError(name, str(error)) from None
    return Picture(data, height, width)


def shown_size(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width in pixels of an encoded picture as it is shown.

    Raises:
        ValueError: if it is no picture, its end is missing, or its header claims more than ``max_pixels``.
    """
    height, width = _size(data, max_pixels)
    check_pixels(height, width, max_pixels)
    return height, width


def _size(data: bytes, max_pixels: int) -> tuple[int, int]:
    if data.startswith(JPEG):
        if not data.endswith(b"\xff\xd9") and data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda"):
            raise ValueError("cut short: a JPEG without its end")  # a thumbnail's end lies before the scan
        header = jpeg_header(data)
        return (header.width, header.height) if header.orientation >= 5 else (header.height, header.width)
    if data.startswith(PNG):
        if b"IEND" not in data[-64:] and b"IEND" not in data:
            raise ValueError("cut short: a PNG without its end")
        stored = png_size(data)
        check_pixels(*stored, max_pixels)
        if b"eXIf" not in data:
            return stored
    return _size_by_pillow(data)


def _size_by_pillow(data: bytes) -> tuple[int, int]:
    if not data:
        raise ValueError("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as opened:
            width, height = opened.size
            turned = opened.getexif().get(_ORIENTATION, 1) >= 5
    except Image.DecompressionBombError:
        raise ValueError("its header claims far too many pixels") from None
    except (OSError, ValueError, SyntaxError):
        raise ValueError("not a picture in a known format") from None
    return (width, height) if turned else (height, width)
