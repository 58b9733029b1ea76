"""The options that detection heads share, and what is known of heads with anchors."""

import math
from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

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


MATRIX_PAIRS = 500
"""Most pairs that ``matrix_nms`` compares, as published (``nms_pre`` of SOLOv2)."""


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
    """How detections are selected from a head's candidates.

    A candidate has a box, an objectness (or centerness) and class scores. A pair is a candidate and
    one of its classes. First the best candidates or pairs are taken, then pairs of one class
    suppress each other, then the best ``max_detections`` pairs are the result.

    ``matrix_nms`` compares every two pairs, so that its cost grows with the square of their number:
    at most the best 500 of an image take part, as in SOLOv2, or ``max_detections`` if that is more.
    """

    score_threshold: float = Field(default=0.02, ge=0, lt=1)
    iou_threshold: float = Field(default=0.5, gt=0, le=1)
    """Boxes with more IoU to a better box of their class are suppressed."""
    max_detections: int = Field(default=100, ge=1)
    """Most detections of an image."""
    candidates: int | None = Field(default=1000, ge=1)
    """Most candidates of an image (or most pairs of a level, see ``rank``) that enter the
    suppression, best first; it bounds the cost. null: all.
    """
    rank: Literal["candidate", "pair"] = "candidate"
    """candidate: the candidates of an image are ranked by their best class. pair: the pairs of each
    level are ranked, as the published dense detectors do (``nms_pre``).
    """
    threshold_on: Literal["score", "class"] = "score"
    """What is compared with the threshold and ranked: the score of a pair, or only its class score,
    as in OpenMMLab's detectors.
    """
    score: Literal["product", "geometric_mean"] = "product"
    """The score of a pair: the product of objectness and class score, or its square root."""
    best_class: bool = False
    """Only the best class of a candidate is a pair (YOLOX)."""
    class_agnostic: bool = False
    """Boxes of different classes suppress each other, too."""
    suppression: Literal["nms", "soft_nms", "matrix_nms", "none"] = "nms"
    """nms: worse boxes are left out. soft_nms: their score is lowered, one better box after the
    other (Bodla et al. 2017). matrix_nms: the same in one step (Wang et al. 2020, SOLOv2, eq. 5),
    for the best ``candidates`` pairs of an image, at most 500. none: for heads without duplicates.
    """
    decay: Literal["linear", "gaussian"] = "linear"
    """How soft_nms and matrix_nms lower a score. linear: by 1 - IoU (soft_nms: where the IoU
    reaches ``iou_threshold``). gaussian: by exp(-IoU^2 / sigma) (matrix_nms: exp(-sigma IoU^2)).
    """
    sigma: float | None = Field(default=None, gt=0)
    """Of a gaussian decay; null: the published 0.5 of soft_nms and 2 of matrix_nms."""
    min_score: float = Field(default=0.001, ge=0, lt=1)
    """Boxes whose lowered score is below this are left out (soft_nms and matrix_nms)."""

    @property
    def width(self) -> float:
        """``sigma``, or its published value."""
        return self.sigma or (0.5 if self.suppression == "soft_nms" else 2.0)

    @property
    def most_compared(self) -> int:
        """How many pairs of an image ``matrix_nms`` compares."""
        return max(min(self.candidates or MATRIX_PAIRS, MATRIX_PAIRS), self.max_detections)


def cells(levels: tuple[str, ...], canvas_hw: tuple[int, int]) -> tuple[int, ...]:
    """The number of cells of each level on a canvas; maps are padded, so that they are rounded
    up.
    """
    return tuple(
        math.ceil(canvas_hw[0] / stride_of(level)) * math.ceil(canvas_hw[1] / stride_of(level))
        for level in levels
    )


def check_maps(head_type: str, levels: tuple[str, ...], strides: Mapping[str, int]) -> None:
    """Raises a ValueError if a level is pooled, there is none, or one is named twice."""
    if not levels or len(set(levels)) < len(levels):
        raise ValueError(
            f"head type {head_type!r} has the levels {', '.join(levels) or 'none'}; name at least "
            "one feature map, and each once"
        )
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
