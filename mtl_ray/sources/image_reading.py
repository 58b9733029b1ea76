"""Reads image files for Samples: the bytes, and the size as shown, without decoding."""

from dataclasses import dataclass

from mtl_ray import storage
from mtl_ray.inputs import image_file
from mtl_ray.inputs.image_header import JPEG, MAX_PIXELS, PNG, TooManyPixelsError
from mtl_ray.samples import EncodedImage
from mtl_ray.sources.source import RawSource, Source, UnreadableError


@dataclass(frozen=True, slots=True)
class ImageRule:
    """How readers treat the images of a dataset.

    Attributes:
        max_pixels: an image whose header states more pixels is skipped.
        needed: False where only annotations are used (``--no-pictures``, statistics): a missing
            image file then gives empty bytes and the size that the annotations state.
    """

    max_pixels: int = MAX_PIXELS
    needed: bool = True


USUAL_RULE = ImageRule()


ABSENT = "image file not there, so that the stated size was used and compared with nothing"
"""Note on an image of which only the annotations exist."""


def read_image(
    uri: str, name: str, rule: ImageRule = USUAL_RULE, stated: tuple[int, int] | None = None
) -> EncodedImage:
    """Reads an image file.

    Args:
        uri: of the file.
        name: of the image, for messages.
        rule: maximum size, and whether the file may be missing.
        stated: height and width that the annotations state, for a missing file.

    Raises:
        UnreadableError: if it is missing, not an image, truncated, or has more pixels than the rule
            allows.
    """
    try:
        data = storage.read(uri)
    except FileNotFoundError:
        return absent_image(name, rule, stated)
    except OSError as error:
        raise UnreadableError(name, error.strerror or str(error) or "cannot be opened") from None
    try:
        height, width = checked_size(data, rule.max_pixels)
    except TooManyPixelsError as error:
        raise UnreadableError(name, f"too many pixels: {error}; --max-pixels allows more") from None
    except ValueError as error:
        raise UnreadableError(name, str(error)) from None
    return EncodedImage(data=data, height=height, width=width)


def absent_image(name: str, rule: ImageRule, stated: tuple[int, int] | None) -> EncodedImage:
    """The image for a missing file: empty bytes and the stated size; see ``read_image``.

    Raises:
        UnreadableError: if the file is needed, no size is stated, or the stated size is larger than
            the rule allows.
    """
    if rule.needed or stated is None or min(stated) < 1:
        raise UnreadableError(name, "listed but not there")
    if stated[0] * stated[1] > rule.max_pixels:
        raise UnreadableError(
            name,
            f"too many pixels: its annotations state {stated[1]} x {stated[0]}, more than the "
            f"{rule.max_pixels:,} allowed; --max-pixels allows more",
        )
    return EncodedImage(data=b"", height=stated[0], width=stated[1])


def checked_size(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width in pixels of an encoded image as it is shown.

    Raises:
        TooManyPixelsError: if its header states more than ``max_pixels``.
        ValueError: if it is not an image, or its end is missing.
    """
    if (
        data.startswith(JPEG)
        and not data.endswith(b"\xff\xd9")
        and data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda")
    ):
        # a thumbnail's end lies before the scan
        raise ValueError("cut short: a JPEG without its end")
    if data.startswith(PNG) and b"IEND" not in data[-64:] and b"IEND" not in data:
        raise ValueError("cut short: a PNG without its end")
    return image_file.shown_size(data, max_pixels)


def open_source(config: RawSource, rule: ImageRule = USUAL_RULE) -> Source:
    """Lists a split of a dataset; see ``RawSource.open``."""
    return config.open(rule)
