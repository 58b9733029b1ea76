"""The ``evaluate.tta`` section of a config: predictions on several variants of each image."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT

NONE = "none"
"""On the command line: no test-time augmentation, whatever the config says."""


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
    iou: float = Field(default=0.55, gt=0, lt=1)
    """Boxes of one class that overlap by more are the same object."""

    def __str__(self) -> str:
        parts = ["flip"] if self.flip else []
        parts.append("scales=" + ":".join(f"{scale:g}" for scale in self.scales))
        return ",".join([*parts, f"fuse={self.fuse}", f"iou={self.iou:g}"])


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
