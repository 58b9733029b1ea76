"""How large training images are: config of the transforms that scale an image for its canvas, and
of canvases of several sizes.
"""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.inputs.image import IMAGE, ImageInput


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Resize:
    """Scales the image so that its shorter side has a random length, its aspect kept, and pads it
    at the right and bottom to the canvas: the multi-scale training of Faster R-CNN's and DETR's
    published schedules. The scale is smaller where the canvas or ``long_side`` has less room.
    """

    input: ClassVar[ImageInput] = IMAGE
    type: Literal["resize"] = "resize"
    p: float = Field(default=1.0, ge=0, le=1)
    short_side: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (640, 800)
    """Least and greatest length of the shorter side in pixels of the canvas."""
    step: int = Field(default=32, ge=1)
    """Pixels between the lengths: 640, 672, ..., 800."""
    long_side: int = Field(default=1333, ge=1)
    """Most pixels of the longer side."""

    def __post_init__(self) -> None:
        if self.short_side[0] > self.short_side[1]:
            raise ValueError(
                f"short_side: {self.short_side[0]} is more than {self.short_side[1]}; the least "
                "comes first"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScaleJitter:
    """Large-scale jitter (Ghiasi et al. 2021, Simple Copy-Paste, section 3): scales the image by a
    random factor, its aspect kept, and crops it at random or pads it at the right and bottom to the
    canvas.
    """

    input: ClassVar[ImageInput] = IMAGE
    type: Literal["scale_jitter"] = "scale_jitter"
    p: float = Field(default=1.0, ge=0, le=1)
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.1, 2.0)
    """Least and greatest size relative to the largest at which the canvas holds the whole image;
    0.8 to 1.25 is the paper's standard jitter."""
    min_visible: float = Field(default=0.3, ge=0, le=1)
    """Boxes of which a smaller share is left are dropped."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MultiScale:
    """Canvases of several sizes in training: each batch has one, the same on every worker (YOLOX).

    Evaluation, export and serving keep the size of ``data.canvas``.
    """

    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.7, 1.3)
    """Least and greatest height relative to that of ``data.canvas``; its aspect is kept as far as
    ``divisor`` allows."""
    divisor: int = Field(default=32, ge=1)
    """Heights and widths are multiples of this."""
    sizes: tuple[tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]], ...] | None = (
        Field(default=None, min_length=1)
    )
    """Heights and widths in pixels, instead of ``scale`` and ``divisor``."""
    every: int = Field(default=1, ge=1)
    """Batches that have the same size before another one is drawn."""

    def sizes_for(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Heights and widths of the canvases, for a ``data.canvas`` of a size in pixels.

        Raises:
            ValueError: if there are none.
        """
        if self.sizes is not None:
            return self.sizes
        first = math.ceil(self.scale[0] * height / self.divisor - 1e-9)
        last = math.floor(self.scale[1] * height / self.divisor + 1e-9)
        heights = [step * self.divisor for step in range(max(1, first), last + 1)]
        if not heights:
            raise ValueError(
                f"multi_scale: no multiple of {self.divisor} is between "
                f"{self.scale[0] * height:g} and {self.scale[1] * height:g} pixels"
            )
        return tuple(
            (each, max(1, round(each * width / height / self.divisor)) * self.divisor)
            for each in heights
        )
