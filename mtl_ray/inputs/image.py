"""Images as an input: encoded files in shards, (H, W, 3) uint8 RGB in memory, a canvas of one size
for the network.

``Canvas`` is the config of ``data.canvas``. It is written into every checkpoint and bundle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.columns import ColumnType, Feature, Features, first_bytes, first_number
from mtl_ray.config.strict import STRICT
from mtl_ray.inputs.decode import decode_image
from mtl_ray.inputs.frame import Frame, frame_of, place
from mtl_ray.inputs.image_file import NO_LIMIT, shown_size
from mtl_ray.inputs.image_formats import FORMATS
from mtl_ray.inputs.input import Arrays, ArraySpec, Input
from mtl_ray.samples import EncodedImage

STEP = 32
"""Open heights and widths may differ from the canvas by multiples of this many pixels, the
coarsest stride of a backbone.
"""


class ImageInput(Input[EncodedImage, NDArray[np.uint8], "Canvas", Frame]):
    """See ``Input``. The raw data is (H, W, 3) uint8 RGB as shown (EXIF orientation applied).

    The arrays are ``image`` uint8 (3, canvas height, canvas width) RGB, and ``valid_hw`` int32
    (2,), the part of the canvas that holds image.
    """

    name = "image"
    columns: ClassVar[Mapping[str, ColumnType]] = {
        "height": "int32",
        "width": "int32",
        "image": "binary",
    }
    limit_name = "pixels"
    media_type = "image/*"
    statistic_name = "brightness"
    statistic_edges = tuple(range(0, 257, 8))
    formats = tuple(FORMATS)
    suffixes = (
        *(
            ".jpg",
            ".jpeg",
            ".jpe",
            ".jfif",
            ".mpo",
            ".png",
            ".bmp",
            ".dib",
            ".webp",
            ".avif",
            ".tif",
            ".tiff",
            ".gif",
        ),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2"),
    )

    def to_row(self, encoded: EncodedImage) -> Mapping[str, Any]:
        """See ``Input``."""
        return {"height": encoded.height, "width": encoded.width, "image": encoded.data}

    def from_row(self, row: Mapping[str, Any]) -> EncodedImage:
        """See ``Input``."""
        return EncodedImage(data=row["image"], height=row["height"], width=row["width"])

    def to_features(self, encoded: EncodedImage) -> dict[str, Feature]:
        """The names that ObjectiveMTL's readers look for."""
        return {
            "image": [encoded.data],
            "height": np.array([encoded.height]),
            "width": np.array([encoded.width]),
        }

    def from_features(self, features: Features) -> EncodedImage | None:
        """See ``Input``; the header of the file says the size where no feature does."""
        data = first_bytes(features, "image")
        if data is None:
            return None
        if "height" in features and "width" in features:
            return EncodedImage(
                data=data,
                height=first_number(features, "height"),
                width=first_number(features, "width"),
            )
        height, width = shown_size(data, NO_LIMIT)
        return EncodedImage(data=data, height=height, width=width)

    def num_bytes(self, encoded: EncodedImage) -> int:
        """See ``Input``."""
        return len(encoded.data)

    def decode(self, encoded: EncodedImage, limit: int) -> NDArray[np.uint8]:
        """See ``Input``; an image of another size than its record says is refused."""
        image = decode_image(encoded.data, limit)
        height, width = image.shape[:2]
        if (height, width) != (encoded.height, encoded.width):
            raise ValueError(
                f"the image is {width} x {height} pixels, its record says {encoded.width} x "
                f"{encoded.height}"
            )
        return image

    def decode_file(self, data: bytes, limit: int) -> NDArray[np.uint8]:
        """See ``decode_image``."""
        return decode_image(data, limit)

    def encode_file(self, raw: NDArray[np.uint8]) -> bytes:
        """A PNG."""
        done, body = cv2.imencode(".png", raw[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
        assert done
        return bytes(body)

    def to_file(self, encoded: EncodedImage) -> tuple[str, bytes]:
        """The file as it is."""
        return ".png" if encoded.data.startswith(b"\x89PNG") else ".jpg", encoded.data

    def may_begin(self, first: bytes) -> bool:
        """No image begins with a brace or a blank."""
        return not (first.isspace() or first == b"{")

    def size(self, raw: NDArray[np.uint8]) -> Mapping[str, int]:
        """``height`` and ``width``, pixels."""
        return {"height": raw.shape[0], "width": raw.shape[1]}

    def statistic(self, raw: NDArray[np.uint8]) -> float:
        """The mean of all channels, of at most about 50 x 50 pixels."""
        rows, columns = (max(1, length // 50) for length in raw.shape[:2])
        return float(raw[::rows, ::columns].mean())

    def pieces(self, raw: NDArray[np.uint8]) -> Sequence[NDArray[np.uint8]]:
        """The upper half and the left half: neither has the shape of a canvas that the image
        fills.
        """
        height, width = raw.shape[:2]
        return [raw[: max(1, height // 2)], raw[:, : max(1, width // 2)]]

    def arrays(self, rule: "Canvas") -> Mapping[str, ArraySpec]:
        """``image`` and ``valid_hw``."""
        return {
            "image": ArraySpec(
                shape=(3, rule.height, rule.width),
                dtype=np.uint8,
                open_axes={1: "height", 2: "width"},
            ),
            "valid_hw": ArraySpec(shape=(2,), dtype=np.int32),
        }

    def fill(self, raw: NDArray[np.uint8], rule: "Canvas", arrays: Arrays) -> Frame:
        """See ``Input``; ``place`` says how an image is fit to a canvas."""
        canvas, frame = place(raw, rule)
        cv2.split(canvas, list(arrays["image"]))
        arrays["valid_hw"][:] = frame.valid_height, frame.valid_width
        return frame

    def fill_empty(self, rule: "Canvas", arrays: Arrays) -> Frame:
        """A canvas of the padding's grey, all of which counts as image."""
        arrays["image"][:] = rule.pad
        frame = frame_of(rule.height, rule.width, rule)
        arrays["valid_hw"][:] = frame.valid_height, frame.valid_width
        return frame

    def unfit(self, rule: "Canvas", arrays: Arrays) -> str | None:
        """``valid_hw`` is a part of the canvas."""
        valid = arrays.get("valid_hw")
        if valid is not None and not ((valid > 0) & (valid <= (rule.height, rule.width))).all():
            return f"valid_hw must be from 1 to {rule.height} and {rule.width}"
        return None

    def own_frame(self, raw: NDArray[np.uint8]) -> Frame:
        """Canvas pixels are image pixels."""
        height, width = raw.shape[:2]
        return frame_of(height, width, Canvas(kind="stretch", height=height, width=width))

    def other_rules(self, rule: "Canvas") -> Sequence["Canvas"]:
        """Half and one and a half of the sides, each changed by a multiple of ``STEP``."""
        return [
            replace(rule, height=_changed(rule.height, share), width=_changed(rule.width, share))
            for share in (-0.5, 0.5)
        ]

    def odd_rules(self, rule: "Canvas") -> Sequence["Canvas"]:
        """Sides that ``STEP`` does not divide, each with another remainder."""
        return [replace(rule, height=rule.height + 11, width=rule.width + 7)]

    def outside(self, rule: "Canvas", checked: Sequence["Canvas"]) -> str | None:
        """Sides must be within those that were checked. They may differ by multiples of ``STEP``,
        or by anything if a graph was right at other sides too.
        """
        for name in ("height", "width"):
            side, sides = getattr(rule, name), [getattr(each, name) for each in checked]
            if not min(sides) <= side <= max(sides):
                return f"its {name}s are {min(sides)} to {max(sides)} pixels"
            if all((each - sides[0]) % STEP == 0 for each in sides) and (side - sides[0]) % STEP:
                return f"its {name}s differ from {sides[0]} by multiples of {STEP} pixels"
        return None

    def size_of(self, rule: "Canvas") -> str:
        """Width and height, pixels."""
        return f"{rule.width}x{rule.height}"

    def show(self, raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image itself."""
        return raw

    def show_arrays(self, arrays: Arrays) -> NDArray[np.uint8]:
        """The canvas."""
        return np.ascontiguousarray(arrays["image"].transpose(1, 2, 0), np.uint8)

    def generate(self, rng: np.random.Generator) -> tuple[EncodedImage, NDArray[np.uint8]]:
        """An image with edges and areas of all sizes in random colours."""
        height, width = (int(side) for side in rng.integers(96, 480, 2))
        image = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
        for _ in range(12):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            colour = tuple(int(value) for value in rng.integers(0, 256, 3))
            cv2.ellipse(
                image,
                centre,
                (int(rng.integers(4, 120)), int(rng.integers(4, 120))),
                int(rng.integers(180)),
                0,
                360,
                colour,
                -1,
            )
        image = np.asarray(cv2.add(image, rng.integers(0, 24, image.shape, np.uint8)), np.uint8)
        return EncodedImage(data=self.encode_file(image), height=height, width=width), image


def _changed(side: int, share: float) -> int:
    """A side that is longer or shorter by about a share of it, at least by one step."""
    steps = max(1, round(abs(share) * side / STEP))
    return side + STEP * steps if share > 0 else max((side - 1) % STEP + 1, side - STEP * steps)


IMAGE = ImageInput()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Canvas:
    """What to do with an image of any size so that it fits a canvas of one size."""

    input: ClassVar[ImageInput] = IMAGE
    type: Literal["image"] = Field(default="image", exclude_if=lambda name: name == "image")
    """The kind of input. Left out of what is written: older programs read it too."""
    kind: Literal["stretch", "letterbox", "crop"] = "letterbox"
    """stretch: both sides scaled on their own. letterbox: one scale, the whole image, padded at
    the right and bottom. crop: the largest part of whole pixels in the middle that has the
    canvas's shape, which fills it; the sides are cut off.
    """
    height: int = Field(gt=0, le=16384)
    """Canvas height in pixels."""
    width: int = Field(gt=0, le=16384)
    """Canvas width in pixels."""
    kernel: Literal["area", "linear"] = "area"
    """area: the mean over what is covered when the image shrinks (see ``resized``), bilinear when
    it grows. linear: bilinear always.
    """
    pad: int = Field(default=114, ge=0, le=255)
    """Grey value of the canvas where there is no image."""
