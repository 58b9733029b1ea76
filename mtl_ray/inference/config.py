"""The sections ``evaluate.tta`` and ``evaluate.slide`` of a config: predictions on several variants
of each image, and on windows of it.
"""

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT

NONE = "none"
"""On the command line: no test-time augmentation, whatever the config says."""
_Side = Annotated[int, Field(ge=1, le=16384)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TtaConfig:
    """Test-time augmentation: each image is predicted in several variants, and what is found in
    them is brought back to the image and fused. It costs as many times as there are variants.
    """

    flip: bool = True
    """Each image also mirrored from left to right."""
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(1.0,), min_length=1)
    """Sizes of the canvas relative to that of the network."""
    fuse: Literal["wbf", "nms"] = "wbf"
    """How boxes are fused. wbf: weighted boxes fusion (Solovyev et al. 2021): boxes that overlap
    become their mean, with a lower score if few variants have them. nms: the best stays. Masks and
    keypoints are those of the best box in either. Scores of labels are averaged."""
    iou: float | None = Field(default=None, gt=0, lt=1)
    """Boxes of one class that overlap by more are the same object. By default 0.55, or what the
    suppression of the head allows its own boxes (``select.iou_threshold``) if that is more."""

    def __str__(self) -> str:
        parts = ["flip"] if self.flip else []
        parts.append("scales=" + ":".join(f"{scale:g}" for scale in self.scales))
        parts.append(f"fuse={self.fuse}")
        return ",".join(parts if self.iou is None else [*parts, f"iou={self.iou:g}"])


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SlideConfig:
    """Slide inference of class maps, as MMSegmentation has it (``test_cfg.mode='slide'``).

    A large image is predicted in overlapping windows at its own scale. The logits of each window
    are summed and divided by the number of windows over each pixel. The windows at the right and
    lower border end there; an image that is smaller than a window is padded.
    """

    crop: tuple[_Side, _Side]
    """Height and width of a window in pixels: the size of the network's canvas."""
    stride: tuple[_Side, _Side]
    """Rows and columns from one window to the next; at most those of a window."""
    fit: tuple[_Side, _Side] | None = None
    """The image is first scaled by one factor to fit into this height and width; None: windows
    are cut from its own pixels. It should look as in the training."""

    @model_validator(mode="after")
    def _without_gaps(self) -> Self:
        if self.stride[0] > self.crop[0] or self.stride[1] > self.crop[1]:
            raise ValueError(
                "stride is larger than crop, so that pixels between the windows would not be seen"
            )
        return self


def parse_tta(text: str) -> TtaConfig | None:
    """The config that the option ``--tta`` describes, such as ``flip,scales=0.8:1:1.2``; None for
    ``none``.

    Raises:
        ValueError: if a part is unknown or has no valid value.
    """
    if text == NONE:
        return None
    values: dict[str, object] = {"flip": False}
    try:
        for part in text.split(","):
            name, _, value = part.partition("=")
            values |= _value(name, value)
        return TypeAdapter(TtaConfig).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(each) for each in first["loc"])
        raise ValueError(f"--tta {text}: {where}: {first['msg']}") from None
    except (LookupError, ValueError):
        raise ValueError(
            f"--tta {text}: {part!r} is none of flip, scales=0.8:1:1.2, fuse=wbf|nms and iou=0.55, "
            f"nor is it {NONE} alone"
        ) from None


def _value(name: str, value: str) -> dict[str, object]:
    """One part of the option; raises LookupError or ValueError if it is none."""
    readers: dict[str, Callable[[str], object]] = {
        "flip": lambda text: {"": True}[text],
        "scales": lambda text: tuple(float(each) for each in text.split(":")),
        "fuse": str,
        "iou": float,
    }
    return {name: readers[name](value)}
