"""The options that detection heads share, and what is known of heads with anchors."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtl_ray.config.strict import STRICT
from mtl_ray.tasks.task import AnyHead

STRIDES_OF_AN_ANCHOR = 3.75
"""The typical size of an anchor in strides of its level. The nine published anchors of YOLOv3
(Redmon and Farhadi 2018, section 2.3) belong to their published levels if this is between 3.70
and 3.78: the limits of strides 8, 16 and 32 are then 42 and 85 pixels.
"""


FITTING_STRIDES = (1.25, 11.0)
"""Sizes of anchors in strides of their level: the published ones have 1.4 to 10.9."""


def stride_of(level: str) -> int:
    """Canvas pixels per cell of a level by the number in its name: P3 has stride 8."""
    return int(2 ** int("".join(letter for letter in level if letter.isdigit())))


@runtime_checkable
class AnchoredHead(AnyHead, Protocol):
    """The config of a head with anchors in canvas pixels."""

    def anchor_sides(self) -> tuple[float, float]:
        """Square roots of the areas of the smallest and the largest anchor, in canvas pixels."""
        ...

    def anchor_advice(self, name: str) -> str:
        """How to make the anchors of the head ``name`` smaller."""
        ...


def anchored_head(head: AnyHead) -> AnchoredHead | None:
    """The head itself if it has anchors, else None."""
    return head if isinstance(head, AnchoredHead) else None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Selection:
    """How detections are selected from a head's candidates."""

    score_threshold: float = Field(default=0.02, ge=0, lt=1)
    iou_threshold: float = Field(default=0.5, gt=0, le=1)
    """Boxes with more IoU to a better box of their class are suppressed."""
    max_detections: int = Field(default=100, ge=1)
    """Most detections of an image."""
    candidates: int = Field(default=1000, ge=1)
    """Most candidates of an image that enter the suppression, best first; it bounds the cost."""


def check_maps(head_type: str, levels: tuple[str, ...], strides: Mapping[str, int]) -> None:
    """Raises a ValueError if a level is pooled."""
    pooled = [level for level in levels if strides[level] == 0]
    if pooled:
        raise ValueError(
            f"head {head_type!r} reads feature maps, not pooled features ({', '.join(pooled)})"
        )


def check_equal_channels(
    head_type: str, levels: tuple[str, ...], channels: Mapping[str, int]
) -> None:
    """Raises a ValueError if the levels have different numbers of channels."""
    if len({channels[level] for level in levels}) > 1:
        raise ValueError(
            f"head type {head_type!r} shares its convolutions among levels, which must have the "
            "same number of channels. Fix: use a neck"
        )
